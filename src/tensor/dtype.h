#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace atom {

/// Element types of plain (not block-quantized) tensors. Names follow safetensors. f8 (E4M3) is in no
/// checkpoint.
enum class DType : uint8_t { f32, f16, bf16, i64, i32, i8, u8, f8 };

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::i8:
    case DType::u8:
    case DType::f8:
      return 1;
  }
  return 0;
}

constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::f8:
      return "F8_E4M3";
  }
  return "?";
}

constexpr bool is_float(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16;
}

}  // namespace atom
