#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace atom {

/// A file mapped read-only. Empty files map to an empty span. Movable, not copyable.
class MappedFile {
 public:
  /// Throws Error naming `path` when it cannot be opened, is not a regular file, or cannot be mapped.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Tells the kernel that these bytes are not needed soon, so that they stop counting as resident.
  void release(std::span<const std::byte> range) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file as a string. Throws Error when it cannot be read or exceeds `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{1} << 32);

}  // namespace atom
