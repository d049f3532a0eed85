#pragma once

#include <cstddef>
#include <new>
#include <string>
#include <utility>

namespace atom {

/// A device's memory is used up; the text says how much was asked for and how much there is.
class OutOfDeviceMemory : public std::bad_alloc {
 public:
  explicit OutOfDeviceMemory(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

/// Memory of a device in which buffers may lie instead of the host's. Only ops of that device may touch what
/// a pointer into it refers to.
class Memory {
 public:
  virtual ~Memory() = default;

  /// Zeroed bytes, aligned to at least 256. Throws OutOfDeviceMemory.
  virtual void* allocate(size_t bytes) = 0;
  /// Waits for the work that may still use them.
  virtual void release(void* data) noexcept = 0;
  /// Host to device, in order with the device's work; `from` may be changed when it returns.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  /// Device to host, behind the device's work so far; the bytes are there when it returns.
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  /// Within the device, in order with its work; the two ranges must not overlap.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
};

}  // namespace atom
