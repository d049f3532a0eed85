#pragma once

#include "kernels/ops.h"

/// Reference of Attention, and the order of its arithmetic, which every implementation repeats bit for bit.
///
/// Online softmax (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022). The keys of a row at
/// position p are 0..p, or the last `window` of these. They are visited ascending in segments of 512 and
/// tiles of 64, both aligned to absolute positions, so a row's result depends neither on how its prefill was
/// chunked, nor on the rest of the batch, the number of threads or where its blocks lie.
///   query     q'[d] = q[d] * scale
///   key,value f16: exact; int8, int4: fma(float(q), scale, minimum), scale and minimum fp16 made float
///   score     s = fma(q'[d], k[d], s) from 0 over ascending d; keys that are not the row's are left out
///   tile      m' = max(m, scores); c = exp(m - m'); e[j] = exp(s[j] - m') (numerics::exp, 0 for NaN)
///             t[i] = sum of e[j], j = i mod 16, ascending; l[i] = fma(l[i], c, t[i]), i < 16
///             a[d] = a[d] * c, then a[d] = fma(e[j], v[j][d], a[d]) over ascending j
///   segment   starts from m = -inf, l = 0, a = 0; merged into the row's M, L, A (the same start) by
///             M' = max(M, m); C = exp(M - M'); c = exp(m - M'); L = fma(L, C, l * c); A = fma(A, C, a * c)
///   row       out[d] = A[d] / fold(L) + 0, fold by 8+8, 4+4, 2+2, 1+1 (the + 0 makes a zero positive: keys
///             of probability 0 that an implementation does or does not add may only differ in that sign)
/// A score that is NaN counts as -inf; a row without any finite score gives NaN.
namespace atom {

inline constexpr int64_t kAttentionTile = 64;
inline constexpr int64_t kAttentionSegment = 512;
inline constexpr int64_t kAttentionSums = 16;

namespace reference {

/// Supports every format, head_dim, block size and ratio of heads. Rows that belong to no sequence are left
/// alone.
void attention(const DeviceContext& device, const Attention& op);

}  // namespace reference

}  // namespace atom
