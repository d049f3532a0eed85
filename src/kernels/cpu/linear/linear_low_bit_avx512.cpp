// LinearLowBit for AVX-512 without VNNI (Skylake-X). y [m, n] = x [m, k] * w [n, k]^T.
// Weights: layout rows16_avx512 (packed_layout.h), 16 output rows a register, 4 channels a lane. Activations:
// INT4 or INT8, one byte each. The arithmetic is that of the AVX2 kernel in registers twice as wide:
// `vpmaddubsw` into 16 bits, widened once a group of 128 for 4-bit activations, every 32 channels for 8-bit.
// Tile: 2 blocks of 16 rows by 8 tokens. See low_bit_tile.inc.

#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear/low_bit_job.h"

namespace atom::cpu {
namespace {

#include "kernels/cpu/linear/low_bit_simd512.inc"

struct Simd : Simd512 {
  static constexpr int kTokens = 8;
  static constexpr bool kWide = false;

  static Int dot(Int acc, Int u, Int s) {
    acc = _mm512_add_epi16(acc, _mm512_maddubs_epi16(u, s));
    // Keeps the compiler from adding products first and sums later, for which there are no registers.
    __asm__("" : "+v"(acc));
    return acc;
  }
  static Int widen(Int acc) { return _mm512_madd_epi16(acc, _mm512_set1_epi16(1)); }
  static Int multiply_add_small(Int acc, Int a, Int b) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
  }
};

#include "kernels/cpu/linear/low_bit_tile.inc"

}  // namespace

void low_bit_avx512(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                    int64_t token_end) {
  run_tiles(job, row_begin, row_end, token_begin, token_end);
}

}  // namespace atom::cpu
