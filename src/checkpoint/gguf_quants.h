#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace atom {

/// Tensor types of GGUF that Atom reads; the values are those in the file.
enum class GgmlType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
};

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
/// Those that Atom reads, for error messages: "F32, F16, Q4_0, ...".
std::string ggml_type_names();

/// The element type of F32, F16 and BF16; nothing for block-quantized types.
std::optional<DType> plain_dtype(GgmlType type);

/// Decodes whole blocks: `in` holds out.size() / elements blocks. Values are those of the PyPI package `gguf`
/// bit for bit (gguf_blocks.h has the formulas).
void dequantize(GgmlType type, std::span<const std::byte> in, std::span<float> out);

/// Whether the FP16 scales of whole blocks are neither NaN nor infinite; true for types without such scales.
bool has_finite_scales(GgmlType type, std::span<const std::byte> in);

}  // namespace atom
