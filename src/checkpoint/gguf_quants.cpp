#include "checkpoint/gguf_quants.h"

#include <array>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "tensor/half.h"

namespace atom {
namespace {

constexpr size_t kBlock = 32;

uint16_t load_u16(const std::byte* p) {
  uint16_t value = 0;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

float load_half(const std::byte* p) {
  return half_to_float(load_u16(p));
}

void dequantize_q4_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 18, out += kBlock) {
    const float d = load_half(in);
    for (size_t i = 0; i < kBlock / 2; ++i) {
      const auto q = std::to_integer<int>(in[2 + i]);
      out[i] = d * static_cast<float>((q & 15) - 8);
      out[i + kBlock / 2] = d * static_cast<float>((q >> 4) - 8);
    }
  }
}

void dequantize_q4_1(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 20, out += kBlock) {
    const float d = load_half(in);
    const float m = load_half(in + 2);
    for (size_t i = 0; i < kBlock / 2; ++i) {
      const auto q = std::to_integer<int>(in[4 + i]);
      out[i] = d * static_cast<float>(q & 15) + m;
      out[i + kBlock / 2] = d * static_cast<float>(q >> 4) + m;
    }
  }
}

void dequantize_q8_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 34, out += kBlock) {
    const float d = load_half(in);
    for (size_t i = 0; i < kBlock; ++i) {
      out[i] = static_cast<float>(static_cast<int8_t>(std::to_integer<uint8_t>(in[2 + i]))) * d;
    }
  }
}

}  // namespace

std::optional<GgmlLayout> find_ggml_layout(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::f32:
      return GgmlLayout{"F32", 1, 4};
    case GgmlType::f16:
      return GgmlLayout{"F16", 1, 2};
    case GgmlType::bf16:
      return GgmlLayout{"BF16", 1, 2};
    case GgmlType::q4_0:
      return GgmlLayout{"Q4_0", kBlock, 18};
    case GgmlType::q4_1:
      return GgmlLayout{"Q4_1", kBlock, 20};
    case GgmlType::q8_0:
      return GgmlLayout{"Q8_0", kBlock, 34};
  }
  return std::nullopt;
}

GgmlLayout layout_of(GgmlType type) {
  const auto layout = find_ggml_layout(static_cast<uint32_t>(type));
  assert(layout);
  return *layout;
}

std::string ggml_type_name(uint32_t type) {
  static constexpr std::array<const char*, 40> kNames = {
      "F32",      "F16",      "Q4_0",    "Q4_1",  "Q4_2",       "Q4_3",       "Q5_0",       "Q5_1",
      "Q8_0",     "Q8_1",     "Q2_K",    "Q3_K",  "Q4_K",       "Q5_K",       "Q6_K",       "Q8_K",
      "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS", "IQ1_S", "IQ4_NL",     "IQ3_S",      "IQ2_S",      "IQ4_XS",
      "I8",       "I16",      "I32",     "I64",   "F64",        "IQ1_M",      "BF16",       "Q4_0_4_4",
      "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};
  if (type < kNames.size()) return kNames[type];
  return fmt::format("type {}", type);
}

std::optional<DType> plain_dtype(GgmlType type) {
  switch (type) {
    case GgmlType::f32:
      return DType::f32;
    case GgmlType::f16:
      return DType::f16;
    case GgmlType::bf16:
      return DType::bf16;
    default:
      return std::nullopt;
  }
}

void dequantize(GgmlType type, std::span<const std::byte> in, std::span<float> out) {
  const GgmlLayout layout = layout_of(type);
  const size_t blocks = out.size() / layout.elements;
  assert(out.size() % layout.elements == 0 && in.size() == blocks * layout.bytes);
  switch (type) {
    case GgmlType::f32:
      if (!out.empty()) std::memcpy(out.data(), in.data(), in.size());
      return;
    case GgmlType::f16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = half_to_float(load_u16(in.data() + 2 * i));
      return;
    case GgmlType::bf16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = bfloat16_to_float(load_u16(in.data() + 2 * i));
      return;
    case GgmlType::q4_0:
      dequantize_q4_0(in.data(), out.data(), blocks);
      return;
    case GgmlType::q4_1:
      dequantize_q4_1(in.data(), out.data(), blocks);
      return;
    case GgmlType::q8_0:
      dequantize_q8_0(in.data(), out.data(), blocks);
      return;
  }
}

}  // namespace atom
