#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/attention/prefill_items.cuh"
#include "tensor/dtype.h"

/// Query rows to shared memory and output rows to global memory, for the prefill kernel: 16 bytes a thread at
/// a time where the elements allow it.
namespace atom::cuda::prefill {

using namespace fragments;

/// Rows first .. first + 63 of an item, as fp16 in the swizzled form of wgmma's operands, by 128 threads;
/// zeros where it has none. All loads are under way before the first is needed.
template <KvFormat kFormat, int kDim>
__device__ inline void load_queries(const PrefillParams& p, const Item& item, int first, int thread,
                                    uint32_t tile) {
  constexpr int kChunks = kDim / 8;
  constexpr int kEach = 64 * kChunks / 128;
  first += thread / kChunks;
  with_element(p.q_dtype, [&]<class T>() {
    const T* const from = static_cast<const T*>(p.q) + (item.first_row + first) * p.q_stride +
                          item.head * kDim + thread % kChunks * 8;
    Run<T, 8> chunks[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = i * (128 / kChunks);
      chunks[i].load(from + row * p.q_stride, first + row < item.n_rows);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const Run<T, 8>& x = chunks[i];
      uint4 packed;
      if constexpr (kFormat == KvFormat::int4) {
        // The order in which int4 words leave unpacking (prefill_producer.cuh).
        packed = {pack(x[0], x[4]), pack(x[1], x[5]), pack(x[2], x[6]), pack(x[3], x[7])};
      } else {
        packed = {pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
      }
      store_16(tile + chunk_offset(first + i * (128 / kChunks), thread % kChunks), packed);
    }
  });
}

/// Brings the rows that load_queries will load to L2.
template <int kDim>
__device__ inline void prefetch_queries(const PrefillParams& p, const Item& item, int first, int thread) {
  const int size = p.q_dtype == DType::f32 ? 4 : 2;
  const int lines = kDim * size / 128;
  for (int i = thread; i < 64 * lines; i += 128) {
    const int row = first + i / lines;
    if (row >= item.n_rows) break;
    const int64_t at = (item.first_row + row) * p.q_stride + item.head * kDim;
    const auto* from = static_cast<const std::byte*>(p.q) + at * size + i % lines * 128;
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
  }
}

/// Exchanges between lanes that differ in bit `mask`: the lower one keeps a and gets the other's a as b, the
/// upper one keeps b and gets the other's b as a.
__device__ inline void exchange(float& a, float& b, bool upper, int mask) {
  const float received = __shfl_xor_sync(0xFFFFFFFFu, upper ? a : b, mask);
  if (upper) {
    a = received;
  } else {
    b = received;
  }
}

/// Columns 8 i + 2 t + {0, 1} of a row of the output are in output[4 i + 2 x + {0, 1}] of the four lanes t of
/// a quad. They exchange, so that each has 4 channels in a row for every even i: output_channel() and on.
template <KvFormat kFormat, int kDim>
__device__ inline void gather_channels(float (&output)[kDim / 2], int x, int t) {
#pragma unroll
  for (int i = 0; i < kDim / 8; i += 2) {
    float* const low = output + 4 * i + 2 * x;
    float* const high = low + 4;
    if constexpr (kFormat == KvFormat::int4) {
      // Lane t has channels t and t + 4 of both words: a transposition of 4 x 4.
      exchange(low[0], low[1], t % 2 == 1, 1);
      exchange(high[0], high[1], t % 2 == 1, 1);
      exchange(low[0], high[0], t >= 2, 2);
      exchange(low[1], high[1], t >= 2, 2);
    } else {
      // An even lane takes four channels of the first 8, an odd one of the second.
      exchange(low[0], high[0], t % 2 == 1, 1);
      exchange(low[1], high[1], t % 2 == 1, 1);
    }
  }
}
template <KvFormat kFormat>
__device__ inline int output_channel(int i, int t) {
  return kFormat == KvFormat::int4 ? 8 * i + 4 * t : 8 * (i + t % 2) + 4 * (t / 2);
}

/// Stores row `row` of an item, gathered, times `factor`.
template <KvFormat kFormat, int kDim>
__device__ inline void store_row(const PrefillParams& p, const Item& item, int row, int t, float factor,
                                 const float (&output)[kDim / 2], int x) {
  if (row >= item.n_rows) return;
  with_element(p.out_dtype, [&]<class T>() {
    T* const to = static_cast<T*>(p.out) + (item.first_row + row) * p.out_stride + item.head * kDim;
#pragma unroll
    for (int i = 0; i < kDim / 8; i += 2) {
      const float* const from = output + 4 * i + 2 * x;
      store_run(to + output_channel<kFormat>(i, t),
                {from[0] * factor, from[1] * factor, from[4] * factor, from[5] * factor});
    }
  });
}

}  // namespace atom::cuda::prefill
