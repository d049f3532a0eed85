// LinearLowBit for AVX-512 with VNNI (Ice Lake, Zen 4 and later). y [m, n] = x [m, k] * w [n, k]^T.
// Weights: layout rows16_avx512 (packed_layout.h), 16 output rows a register, 4 channels a lane. Activations:
// INT4 or INT8, one byte each. `vpdpbusd` adds four products of u8 weight and s8 activation to 32 bits, so
// sums are exact for any group and for INT8 outliers without further ado.
// Tile: 2 blocks of 16 rows by 8 tokens: 16 sums, enough to hide the latency of five cycles on two ports, and
// registers to spare, which compilers turn out to need. See low_bit_tile.inc.

#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear/low_bit_job.h"

namespace atom::cpu {
namespace {

#include "kernels/cpu/linear/low_bit_simd512.inc"

struct Simd : Simd512 {
  static constexpr int kTokens = 8;
  static constexpr bool kWide = true;

  static Int dot(Int acc, Int u, Int s) { return _mm512_dpbusd_epi32(acc, u, s); }
  static Int widen(Int acc) { return acc; }
  static Int multiply_add_small(Int acc, Int a, Int b) { return _mm512_dpwssd_epi32(acc, a, b); }
};

#include "kernels/cpu/linear/low_bit_tile.inc"

}  // namespace

void low_bit_avx512vnni(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                        int64_t token_end) {
  run_tiles(job, row_begin, row_end, token_begin, token_end);
}

}  // namespace atom::cpu
