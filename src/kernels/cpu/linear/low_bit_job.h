#pragma once

#include <cstdint>

namespace atom::cpu {

/// A LinearLowBit in the plain terms that the kernels of the single instruction sets take: they are compiled
/// with instructions that the processor may lack, so nothing inline of other headers may be compiled there.
/// Weights as in packed_layout.h, activations as in kernels/quantized.h.
struct LowBitJob {
  int64_t n;
  int64_t groups;
  /// Chunks of 8 channels in a group, and in the last group.
  int64_t chunks_per_group;
  int64_t last_chunks;
  /// Channels of a group.
  int64_t group;
  int64_t n_outlier;
  bool fp16_outliers;

  const uint8_t* values;
  /// Bytes of `values` that a block of rows has.
  int64_t block_bytes;
  const uint16_t* scales;
  const uint8_t* outliers;
  const uint16_t* outlier_scales;
  const uint16_t* outliers_fp16;
  /// Of rows and tokens; null unless scales are integers (kernels/integer_scales.h), which are 1 for groups
  /// of INT8 activations.
  const float* units;
  const float* x_units;

  const int8_t* x;
  int64_t x_stride;
  int64_t x_outlier_offset;
  const float* x_scales;
  const int32_t* x_sums;
  /// Of x_scales and x_sums.
  int64_t x_scale_stride;
  const float* x_fp16;
  /// Bits of the normal activations.
  int activation_bits;

  float* y;
  int64_t y_stride;
  bool accumulate;
};

/// Computes outputs [row_begin, row_end) of tokens [token_begin, token_end). row_begin is a multiple of
/// kLowBitRows, row_end too or n.
using LowBitKernel = void (*)(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                              int64_t token_end);

/// Rows a kernel takes at once, for every instruction set.
inline constexpr int64_t kLowBitRows = 32;

void low_bit_avx2(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                  int64_t token_end);
void low_bit_avx512(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                    int64_t token_end);
void low_bit_avx512vnni(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                        int64_t token_end);

}  // namespace atom::cpu
