#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/tensor.h"

namespace atom {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// The safetensors format: a 64-bit little-endian header length, a JSON header, then the tensors' bytes
/// without gaps. The constructor checks the whole header; after that every entry's bytes lie in the file and
/// agree with its type and shape.
class SafetensorsFile {
 public:
  /// Maps the file. Throws Error naming file and tensor or field.
  explicit SafetensorsFile(const std::filesystem::path& path);
  /// Reads from memory that somebody else keeps; `name` is for errors.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);

  /// The path, or what was given for errors.
  const std::string& name() const { return name_; }
  /// In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// The header's "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The entry, or null.
  const SafetensorsEntry* find(const std::string& name) const;
  /// Throws Error when it is missing.
  const SafetensorsEntry& get(const std::string& name) const;

  /// A view of the mapped file; copied only when it is misaligned for its type.
  Tensor load(const std::string& name) const;
  /// Values as float. Throws Error when `out` has another number of elements or the tensor is not of a float
  /// type.
  void read_float(const std::string& name, std::span<float> out) const;

 private:
  void parse(std::span<const std::byte> bytes);

  std::shared_ptr<const MappedFile> mapping_;
  std::string name_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

/// The type with this name in safetensors, or nothing for one Atom does not read.
std::optional<DType> parse_dtype(std::string_view name);

}  // namespace atom
