#include "checkpoint/hf_int4_weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstring>

#include "tensor/half.h"

namespace atom {
namespace {

constexpr int64_t kPerWord = 8;
/// The column, of eight, that AWQ puts into each nibble, and the nibble of each column.
constexpr std::array<int, kPerWord> kAwqOrder = {0, 2, 4, 6, 1, 3, 5, 7};
constexpr std::array<int, kPerWord> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

/// Rows and columns of W that are unpacked at a time, so that neither file nor result is walked with large
/// strides.
constexpr int64_t kTile = 64;

template <class Value>
Value rounded(float value, DType dtype) {
  if constexpr (sizeof(Value) == sizeof(float))
    return value;
  else
    return dtype == DType::f16 ? float_to_half(value) : float_to_bfloat16(value);
}

/// Looks up columns [first, first + columns) of input i: `values` has 16 for each column, `out` takes one for
/// each, kTile apart. Both numbers are multiples of eight.
template <class Value>
void look_up(const HfInt4Weight& weight, int64_t i, int64_t first, int64_t columns, const Value* values,
             Value* out) {
  if (!weight.awq) {
    const int32_t* words = weight.qweight + i / kPerWord * weight.out + first;
    const auto shift = static_cast<int>(i % kPerWord * 4);
    for (int64_t c = 0; c < columns; ++c) {
      out[c * kTile] = values[c * 16 + (static_cast<uint32_t>(words[c]) >> shift & 15)];
    }
    return;
  }
  const int32_t* words = weight.qweight + (i * weight.out + first) / kPerWord;
  for (int64_t c = 0; c < columns; c += kPerWord) {
    const auto word = static_cast<uint32_t>(words[c / kPerWord]);
    for (int64_t j = 0; j < kPerWord; ++j) {
      const int shift = 4 * kAwqNibble[static_cast<size_t>(j)];
      out[(c + j) * kTile] = values[(c + j) * 16 + (word >> shift & 15)];
    }
  }
}

template <class Value>
void dequantize_as(const HfInt4Weight& weight, DType dtype, Value* result) {
  // A value depends on column, group and nibble alone: 16 of them are computed for each group of a column,
  // and then looked up. Fewer columns at a time where there are many groups, to bound the table.
  constexpr int64_t kTable = 1 << 20;
  const int64_t width =
      std::clamp<int64_t>(kTable / (weight.groups * 16), kPerWord, kTile) / kPerWord * kPerWord;
  std::vector<Value> table(static_cast<size_t>(weight.groups * width * 16));
  std::vector<Value> tile(static_cast<size_t>(width * kTile));
  for (int64_t first = 0; first < weight.out; first += width) {
    const int64_t columns = std::min(width, weight.out - first);
    for (int64_t g = 0; g < weight.groups; ++g) {
      for (int64_t c = 0; c < columns; ++c) {
        const auto at = static_cast<size_t>(g * weight.out + first + c);
        Value* values = table.data() + (g * width + c) * 16;
        for (int q = 0; q < 16; ++q) {
          values[q] = rounded<Value>(static_cast<float>(q - weight.zeros[at]) * weight.scales[at], dtype);
        }
      }
    }
    for (int64_t begin = 0; begin < weight.in; begin += kTile) {
      const int64_t rows = std::min(kTile, weight.in - begin);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = begin + r;
        const Value* values = table.data() + weight.group[static_cast<size_t>(i)] * width * 16;
        look_up(weight, i, first, columns, values, tile.data() + r);
      }
      for (int64_t c = 0; c < columns; ++c) {
        std::copy_n(tile.data() + c * kTile, rows, result + (first + c) * weight.in + begin);
      }
    }
  }
}

}  // namespace

std::vector<uint8_t> unpack_int4_zeros(std::span<const int32_t> words, bool awq, bool minus_one) {
  std::vector<uint8_t> zeros(words.size() * kPerWord);
  for (size_t w = 0; w < words.size(); ++w) {
    const auto word = static_cast<uint32_t>(words[w]);
    for (size_t j = 0; j < kPerWord; ++j) {
      const size_t column = awq ? static_cast<size_t>(kAwqOrder[j]) : j;
      const uint32_t stored = word >> (4 * j) & 15;
      zeros[w * kPerWord + column] = static_cast<uint8_t>(minus_one ? (stored + 1) & 15 : stored);
    }
  }
  return zeros;
}

void dequantize_int4(const HfInt4Weight& weight, DType dtype, std::span<std::byte> result) {
  assert(result.size() == static_cast<size_t>(weight.in * weight.out) * size_of(dtype));
  if (dtype == DType::f32) {
    dequantize_as(weight, dtype, reinterpret_cast<float*>(result.data()));
  } else {
    dequantize_as(weight, dtype, reinterpret_cast<uint16_t*>(result.data()));
  }
}

}  // namespace atom
