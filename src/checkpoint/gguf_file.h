#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/gguf_quants.h"

namespace atom {

class ByteReader;

/// Types of GGUF metadata values; the numbers are those in the file.
enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// A metadata value, still in the bytes of the file. Validated: reading it again cannot run out of them.
struct GgufValue {
  GgufType type = GgufType::u8;
  /// Of an array: the type and number of its elements, whose bytes are in `bytes`.
  GgufType element = GgufType::u8;
  uint64_t count = 0;
  /// The value; a string or string array with its length prefixes.
  std::span<const std::byte> bytes;
};

/// A tensor of the file. `shape` is row-major (the reverse of the order in the file).
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t elements() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
};

/// The container format GGUF, version 2 or 3, little-endian: metadata and tensors, whatever they mean.
/// The constructor checks everything about the file's structure (types, bounds, alignment, overlap,
/// duplicates), so that everything after it stays within `bytes`; it copies no values.
class GgufFile {
 public:
  /// `name` is for errors; `bytes` must outlive this. Throws Error.
  GgufFile(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  uint32_t version() const { return version_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Keys in the order of the file.
  const std::vector<std::string_view>& keys() const { return keys_; }

  /// The value of a metadata key, or null.
  const GgufValue* find(std::string_view key) const;

  /// Typed access. `find_*` gives nothing when the key is missing; all throw Error naming the key when its
  /// type is another. Integers of every width are accepted when their value is not negative; numbers as F32
  /// or F64.
  std::optional<uint64_t> find_uint(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  /// As above, but a missing key is an Error too.
  uint64_t get_uint(std::string_view key) const;
  double get_float(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;

  /// Number of elements of an array of strings. Throws Error when the key is missing or something else.
  uint64_t count_strings(std::string_view key) const;
  /// Calls `visit(index, string)` for each of them.
  void for_each_string(std::string_view key,
                       const std::function<void(uint64_t, std::string_view)>& visit) const;
  /// An array of integers of any width. Throws Error when the key is missing or something else.
  std::vector<int64_t> get_ints(std::string_view key) const;

 private:
  const GgufValue& get(std::string_view key) const;
  const GgufValue& get_string_array(std::string_view key) const;
  void read_tensors(ByteReader& in, uint64_t count, std::span<const std::byte> bytes);
  void check_overlap() const;

  std::string name_;
  uint32_t version_ = 0;
  std::vector<std::string_view> keys_;
  std::unordered_map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
};

/// "u32", "string", "array", ... or "type 99".
std::string gguf_type_name(uint32_t type);

}  // namespace atom
