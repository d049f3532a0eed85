#include "checkpoint/gguf_quants.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>

#include "base/error.h"
#include "checkpoint/gguf_blocks.h"

namespace atom {
namespace {

void copy_f32(const std::byte* in, float* out, size_t count) {
  if (count != 0) std::memcpy(out, in, count * sizeof(float));
}

void widen_f16(const std::byte* in, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = gguf_blocks::load_half(in + 2 * i);
}

void widen_bf16(const std::byte* in, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = bfloat16_to_float(gguf_blocks::load_u16(in + 2 * i));
}

struct TypeEntry {
  GgmlType type;
  GgmlLayout layout;
  void (*decode)(const std::byte* in, float* out, size_t blocks);
  /// Where in a block its FP16 scales are.
  std::array<int, 2> halves = {-1, -1};
};

constexpr TypeEntry kTypes[] = {
    {GgmlType::f32, {"F32", 1, 4}, copy_f32},
    {GgmlType::f16, {"F16", 1, 2}, widen_f16},
    {GgmlType::bf16, {"BF16", 1, 2}, widen_bf16},
    {GgmlType::q4_0, {"Q4_0", 32, 18}, gguf_blocks::dequantize_q4_0, {0, -1}},
    {GgmlType::q4_1, {"Q4_1", 32, 20}, gguf_blocks::dequantize_q4_1, {0, 2}},
    {GgmlType::q5_0, {"Q5_0", 32, 22}, gguf_blocks::dequantize_q5_0, {0, -1}},
    {GgmlType::q5_1, {"Q5_1", 32, 24}, gguf_blocks::dequantize_q5_1, {0, 2}},
    {GgmlType::q8_0, {"Q8_0", 32, 34}, gguf_blocks::dequantize_q8_0, {0, -1}},
    {GgmlType::q2_k, {"Q2_K", 256, 84}, gguf_blocks::dequantize_q2_k, {80, 82}},
    {GgmlType::q3_k, {"Q3_K", 256, 110}, gguf_blocks::dequantize_q3_k, {108, -1}},
    {GgmlType::q4_k, {"Q4_K", 256, 144}, gguf_blocks::dequantize_q4_k, {0, 2}},
    {GgmlType::q5_k, {"Q5_K", 256, 176}, gguf_blocks::dequantize_q5_k, {0, 2}},
    {GgmlType::q6_k, {"Q6_K", 256, 210}, gguf_blocks::dequantize_q6_k, {208, -1}},
    {GgmlType::iq4_nl, {"IQ4_NL", 32, 18}, gguf_blocks::dequantize_iq4_nl, {0, -1}},
    {GgmlType::iq4_xs, {"IQ4_XS", 256, 136}, gguf_blocks::dequantize_iq4_xs, {0, -1}},
    {GgmlType::tq1_0, {"TQ1_0", 256, 54}, gguf_blocks::dequantize_tq1_0, {52, -1}},
    {GgmlType::tq2_0, {"TQ2_0", 256, 66}, gguf_blocks::dequantize_tq2_0, {64, -1}},
    {GgmlType::mxfp4, {"MXFP4", 32, 17}, gguf_blocks::dequantize_mxfp4},
};

const TypeEntry* find_type(uint32_t type) {
  const auto* it = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeEntry& entry) {
    return static_cast<uint32_t>(entry.type) == type;
  });
  return it == std::end(kTypes) ? nullptr : it;
}

}  // namespace

std::optional<GgmlLayout> find_ggml_layout(uint32_t type) {
  const TypeEntry* entry = find_type(type);
  return entry == nullptr ? std::nullopt : std::optional(entry->layout);
}

GgmlLayout layout_of(GgmlType type) {
  const auto layout = find_ggml_layout(static_cast<uint32_t>(type));
  assert(layout);
  return *layout;
}

std::string ggml_type_name(uint32_t type) {
  static constexpr std::array<const char*, 42> kNames = {
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0"};
  if (type < kNames.size()) return kNames[type];
  return fmt::format("type {}", type);
}

std::string ggml_type_names() {
  std::string names;
  for (const TypeEntry& entry : kTypes) {
    if (!names.empty()) names += ", ";
    names += entry.layout.name;
  }
  return names;
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
  const TypeEntry* entry = find_type(static_cast<uint32_t>(type));
  assert(entry != nullptr && out.size() % entry->layout.elements == 0);
  const size_t blocks = out.size() / entry->layout.elements;
  assert(in.size() == blocks * entry->layout.bytes);
  entry->decode(in.data(), out.data(), blocks);
}

bool has_finite_scales(GgmlType type, std::span<const std::byte> in) {
  const TypeEntry* entry = find_type(static_cast<uint32_t>(type));
  assert(entry != nullptr && in.size() % entry->layout.bytes == 0);
  constexpr uint16_t kInfinity = 0x7C00;  // and, in the exponent, NaN
  for (const int offset : entry->halves) {
    if (offset < 0) continue;
    for (size_t at = static_cast<size_t>(offset); at < in.size(); at += entry->layout.bytes) {
      if ((gguf_blocks::load_u16(in.data() + at) & kInfinity) == kInfinity) return false;
    }
  }
  return true;
}

}  // namespace atom
