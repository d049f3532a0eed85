#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace atom {

/// Walks the fields of one message in protobuf's wire format, from untrusted bytes. Nothing is copied; a
/// nested message is a reader of its own over the field's bytes.
class ProtobufReader {
 public:
  /// `source` is for errors and must outlive the reader, as `bytes` must.
  ProtobufReader(std::string_view bytes, std::string_view source) : bytes_(bytes), source_(source) {}

  /// Goes to the next field; false behind the last. Groups, which nobody writes any more, are refused.
  bool next() {
    if (position_ == bytes_.size()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    require(field_ >= 1 && field_ < (uint64_t{1} << 29),
            "{}: not a protobuf message: field number {} at byte {}", source_, field_, position_);
    type_ = static_cast<uint32_t>(tag & 7);
    switch (type_) {
      case kVarint:
        value_ = varint();
        break;
      case kFixed64:
        value_ = fixed(8);
        break;
      case kBytes:
        content_ = take(varint());
        break;
      case kFixed32:
        value_ = fixed(4);
        break;
      default:
        fail("{}: not a protobuf message: wire type {} at byte {}", source_, type_, position_);
    }
    return true;
  }

  uint64_t field() const { return field_; }

  uint64_t integer() const { return expect(kVarint), value_; }
  bool boolean() const { return integer() != 0; }
  float number() const {
    expect(kFixed32);
    return std::bit_cast<float>(static_cast<uint32_t>(value_));
  }
  std::string_view bytes() const { return expect(kBytes), content_; }

 private:
  enum : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  void expect(uint32_t type) const {
    require(type_ == type, "{}: field {} has wire type {}, expected {}", source_, field_, type_, type);
  }

  std::string_view take(uint64_t count) {
    require(count <= bytes_.size() - position_,
            "{}: truncated or corrupt: {} bytes wanted at byte {}, {} are left", source_, count, position_,
            bytes_.size() - position_);
    const std::string_view taken = bytes_.substr(position_, static_cast<size_t>(count));
    position_ += static_cast<size_t>(count);
    return taken;
  }

  uint64_t fixed(size_t count) {
    const std::string_view taken = take(count);
    uint64_t value = 0;
    for (size_t i = count; i > 0; --i) value = value << 8 | static_cast<uint8_t>(taken[i - 1]);
    return value;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("{}: not a protobuf message: a number of more than 64 bits at byte {}", source_, position_);
  }

  std::string_view bytes_;
  std::string_view source_;
  size_t position_ = 0;
  uint64_t field_ = 0;
  uint32_t type_ = 0;
  uint64_t value_ = 0;
  std::string_view content_;
};

}  // namespace atom
