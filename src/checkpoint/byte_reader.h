#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace atom {

static_assert(std::endian::native == std::endian::little, "the file formats are read as they are in memory");

/// A cursor over untrusted little-endian bytes: every read checks its bounds first and throws an Error that
/// names the file, what was being read, and the position.
class ByteReader {
 public:
  /// `file` is the name for errors; `bytes` must outlive the reader.
  ByteReader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }

  template <class T>
  T read(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  /// The next `count` bytes.
  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    require(count <= remaining(), "{}: truncated or corrupt: {} at byte {} needs {} bytes, {} are left",
            file_, printable(what), position_, count, remaining());
    const auto taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += static_cast<size_t>(count);
    return taken;
  }

  /// A string preceded by its length as a 64-bit integer; a view of the underlying bytes.
  std::string_view string(std::string_view what) {
    const auto length = read<uint64_t>(what);
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  size_t position_ = 0;
};

}  // namespace atom
