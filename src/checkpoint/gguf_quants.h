#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace atom {

/// Tensor types of GGUF that Atom reads; the values are those in the file.
enum class GgmlType : uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, bf16 = 30 };

/// How a type is laid out: rows are sequences of blocks of `elements` values in `bytes` bytes.
struct GgmlLayout {
  const char* name;
  uint32_t elements;
  uint32_t bytes;
};

/// The layout, or nothing for a type Atom does not read.
std::optional<GgmlLayout> find_ggml_layout(uint32_t type);
GgmlLayout layout_of(GgmlType type);

/// The name of any type of the format, for error messages: "Q4_K", or "type 99" for an unknown number.
std::string ggml_type_name(uint32_t type);

/// The element type of F32, F16 and BF16; nothing for block-quantized types.
std::optional<DType> plain_dtype(GgmlType type);

/// Decodes whole blocks: `in` holds out.size() / elements blocks. Values are those of the PyPI package `gguf`
/// bit for bit: the scale is widened to float first, then one multiplication, then (Q4_1) one addition.
///
///   Q4_0: fp16 d, 16 bytes q:          d * (q - 8)      low nibbles are values 0..15, high ones 16..31
///   Q4_1: fp16 d, fp16 m, 16 bytes q:  d * q + m
///   Q8_0: fp16 d, 32 int8 q:           q * d
void dequantize(GgmlType type, std::span<const std::byte> in, std::span<float> out);

}  // namespace atom
