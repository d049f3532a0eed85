#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace atom {

/// A tensor that is going to be written.
struct SafetensorsItem {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
};

/// Writes a safetensors file of any size in bounded memory: first what is in it, then the bytes, piece by
/// piece. The bytes begin at a multiple of 64; the format allows no gaps between tensors, so only items
/// listed in descending order of element size are sure to be aligned for their type (the reader copies those
/// that are not). A file that was not finished is removed again.
class SafetensorsWriter {
 public:
  /// Creates the file and writes the header. Throws Error naming the file when that fails, for names that are
  /// empty, repeated or not UTF-8, and for sizes that overflow.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsItem> items,
                    const std::map<std::string, std::string>& metadata = {});
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The next bytes of tensor `name`: tensors come in the order of the items, each in one piece or several.
  /// Throws Error naming the file when they cannot be written, and naming the tensor when it is not its turn
  /// or has more bytes than its shape says.
  void write(const std::string& name, std::span<const std::byte> bytes);
  template <class T>
  void write(const std::string& name, std::span<const T> values) {
    write(name, std::as_bytes(values));
  }

  /// Checks that everything was written, and waits until it is on the disk. Throws Error otherwise.
  void finish();

 private:
  void skip_complete();
  void put(std::span<const std::byte> bytes);
  void flush();
  void write_all(std::span<const std::byte> bytes);

  /// A file, removed again when it was created and `keep` was not set.
  struct Output {
    explicit Output(const std::filesystem::path& path_) : path(path_) {}
    std::filesystem::path path;
    int fd = -1;
    bool created = false;
    bool keep = false;
    ~Output();
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
  };

  Output output_;
  std::vector<SafetensorsItem> items_;
  std::vector<uint64_t> sizes_;
  size_t current_ = 0;
  uint64_t written_ = 0;
  std::vector<std::byte> pending_;
};

}  // namespace atom
