#include <algorithm>
#include <string>

#include <climits>

#include "base/error.h"
#include "kernels/cuda/baseline/w4a16/kernel.cuh"
#include "kernels/cuda/baseline/w4a16/w4a16.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::baseline {
namespace {

/// Dequantized weights that are kept at a time.
constexpr int64_t kSlabBytes = int64_t{256} << 20;
constexpr int kThreads = 256;

/// One thread two channels or a scale; a block a unit, its place in grid.x = tiles * groups.
__global__ void pack(const uint8_t* values, const __half* scales, int64_t n, int64_t k, int groups,
                     uint8_t* packed) {
  const int64_t tile = blockIdx.x / groups, group = blockIdx.x % groups;
  uint8_t* unit = packed + int64_t{blockIdx.x} * w4a16::kUnitBytes;
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kValueBytes; i += kThreads) {
    const int64_t row = tile * w4a16::kTileRows + i / 64;
    // Bytes 0 and 1 of a word hold even channels, 2 and 3 odd ones.
    const int byte = i % 4;
    const int64_t channel =
        group * w4a16::kGroup + w4a16::first_channel(i % 64 / 4) + byte % 2 * 4 + byte / 2;
    const auto nibble = [&](int64_t c) {
      return row < n && c < k ? values[row * (k / 2) + c / 2] >> (c % 2 * 4) & 15 : 0;
    };
    unit[i] = static_cast<uint8_t>(nibble(channel) | nibble(channel + 2) << 4);
  }
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kTileRows; i += kThreads) {
    const int64_t row = tile * w4a16::kTileRows + i;
    reinterpret_cast<__half*>(unit + w4a16::kValueBytes)[i] =
        row < n ? scales[row * groups + group] : __half(0);
  }
}

/// out[row, channel] = fp16(value * scale) of whole tiles, 8 channels a thread: for products of many tokens.
__global__ void dequantize_weights(const uint8_t* packed, int groups, int64_t rows, int64_t k, __half* out) {
  const uint8_t* unit = packed + int64_t{blockIdx.x} * w4a16::kUnitBytes;
  const int64_t tile = blockIdx.x / groups, group = blockIdx.x % groups;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kValueBytes / 4; i += kThreads) {
    const int64_t row = tile * w4a16::kTileRows + i / 16;
    const int64_t channel = group * w4a16::kGroup + w4a16::first_channel(i % 16);
    const __half scale = reinterpret_cast<const __half*>(unit + w4a16::kValueBytes)[i / 16];
    uint32_t v[4];
    w4a16::dequantize(reinterpret_cast<const uint32_t*>(unit)[i], __half2half2(scale), v);
    if (row >= rows || channel >= k) continue;
    *reinterpret_cast<uint4*>(out + row * k + channel) = {v[0], v[1], v[2], v[3]};
  }
}

int64_t groups_of(int64_t k) {
  return (k + w4a16::kGroup - 1) / w4a16::kGroup;
}

int64_t tiles_of(int64_t n) {
  return (n + w4a16::kTileRows - 1) / w4a16::kTileRows;
}

/// Rows of w that are dequantized at a time, in equal parts.
int64_t slab_rows(const W4A16Args& args) {
  const int64_t slabs = (args.n * args.k * 2 + kSlabBytes - 1) / kSlabBytes;
  return std::min(args.n, ((args.n + slabs - 1) / slabs + 127) / 128 * 128);
}

template <int kTokens>
void launch_as(const w4a16::Params& p, cudaStream_t stream) {
  constexpr int kSmem = w4a16::Ring<kTokens>::kBytes;
  const auto kernel = w4a16::w4a16_kernel<kTokens>;
  const dim3 grid(static_cast<unsigned>((p.n + w4a16::kTileRows - 1) / w4a16::kTileRows * p.splits),
                  static_cast<unsigned>((p.m + kTokens - 1) / kTokens));
  launch(kernel, grid, w4a16::kThreads, kSmem, stream, {p.splits}, p);
}

void stream_weights(const W4A16Args& args, cudaStream_t stream) {
  const w4a16::Config config = w4a16::choose(args.m, args.n, args.k, sm_count());
  w4a16::Params p = {};
  p.w = args.w;
  p.x = static_cast<const __half*>(args.x);
  p.y = args.y;
  p.y_stride = args.y_stride != 0 ? args.y_stride : args.n;
  p.m = static_cast<int>(args.m);
  p.n = static_cast<int>(args.n);
  p.k = static_cast<int>(args.k);
  p.groups = static_cast<int>(groups_of(args.k));
  p.splits = config.splits;
  p.result = args.result;
  p.accumulate = args.accumulate;
  p.four = args.result == ResultType::f32 && p.y_stride % 4 == 0 && args.n % 4 == 0 &&
           reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
  switch (config.tokens) {
    case 8:
      return launch_as<8>(p, stream);
    case 16:
      return launch_as<16>(p, stream);
    case 32:
      return launch_as<32>(p, stream);
    default:
      return launch_as<64>(p, stream);
  }
}

}  // namespace

size_t w4a16_packed_bytes(int64_t n, int64_t k) {
  return static_cast<size_t>(tiles_of(n) * groups_of(k) * w4a16::kUnitBytes);
}

void w4a16_pack(const uint8_t* values, const uint16_t* scales, int64_t n, int64_t k, uint8_t* packed,
                cudaStream_t stream) {
  if (n == 0 || k == 0) return;
  pack<<<static_cast<unsigned>(tiles_of(n) * groups_of(k)), kThreads, 0, stream>>>(
      values, reinterpret_cast<const __half*>(scales), n, k, static_cast<int>(groups_of(k)), packed);
  ATOM_CUDA_CHECK(cudaGetLastError());
}

size_t w4a16_scratch_bytes(const W4A16Args& args) {
  return args.m <= w4a16::kMaxTokens ? 0 : static_cast<size_t>(slab_rows(args) * args.k * 2);
}

void w4a16_matmul(const W4A16Args& args, CublasLt& lt, void* scratch, cudaStream_t stream) {
  if (args.k <= 0 || args.k % 8 != 0 || args.k > INT_MAX / 2 || args.n > INT_MAX / 2) {
    throw Error("W4A16 with n " + std::to_string(args.n) + ", k " + std::to_string(args.k) +
                ": k must be a multiple of 8");
  }
  if (args.result != ResultType::f32 && args.result != ResultType::f16) {
    throw Error("W4A16: the result is f32 or f16");
  }
  if (args.m == 0 || args.n == 0) return;
  if (args.m <= w4a16::kMaxTokens) return stream_weights(args, stream);
  const int64_t slab = slab_rows(args), groups = groups_of(args.k);
  for (int64_t row = 0; row < args.n; row += slab) {
    const int64_t rows = std::min(slab, args.n - row);
    dequantize_weights<<<static_cast<unsigned>(tiles_of(rows) * groups), kThreads, 0, stream>>>(
        args.w + row / w4a16::kTileRows * groups * w4a16::kUnitBytes, static_cast<int>(groups), rows, args.k,
        static_cast<__half*>(scratch));
    ATOM_CUDA_CHECK(cudaGetLastError());
    MatmulArgs product;
    product.type = OperandType::f16;
    product.result = args.result;
    product.m = args.m;
    product.n = rows;
    product.k = args.k;
    product.x = args.x;
    product.w = scratch;
    product.y = static_cast<uint8_t*>(args.y) + row * (args.result == ResultType::f32 ? 4 : 2);
    product.y_stride = args.y_stride != 0 ? args.y_stride : args.n;
    product.accumulate = args.accumulate;
    lt.matmul(product, stream);
  }
}

}  // namespace atom::cuda::baseline
