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

/// One thread a byte or a scale; a block a unit, its place in grid.x = tiles * groups.
__global__ void pack(const uint8_t* values, const __half* scales, int64_t n, int64_t k, int groups,
                     uint8_t* packed) {
  const int64_t tile = blockIdx.x / groups, group = blockIdx.x % groups;
  uint8_t* unit = packed + int64_t{blockIdx.x} * w4a16::kUnitBytes;
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kValueBytes; i += kThreads) {
    const auto nibble = [&](bool high) -> int {
      const w4a16::NibblePlace place = w4a16::nibble_place(i, high);
      const int64_t row = tile * w4a16::kTileRows + place.row,
                    channel = group * w4a16::kGroup + place.channel;
      if (row >= n || channel >= k) return 0;
      return values[row * (k / 2) + channel / 2] >> (channel % 2 * 4) & 15;
    };
    unit[i] = static_cast<uint8_t>(nibble(false) | nibble(true) << 4);
  }
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kTileRows; i += kThreads) {
    const int64_t row = tile * w4a16::kTileRows + i;
    reinterpret_cast<__half*>(unit + w4a16::kValueBytes)[i] =
        row < n ? scales[row * groups + group] : __half(0);
  }
}

/// out[row, channel] = fp16(value * scale) of whole tiles, 8 channels a thread: for products of many tokens.
__global__ void __launch_bounds__(kThreads)
    dequantize_weights(const uint8_t* packed, int groups, int64_t rows, int64_t k, __half* out) {
  const uint8_t* unit = packed + int64_t{blockIdx.x} * w4a16::kUnitBytes;
  const int64_t tile = blockIdx.x / groups, group = blockIdx.x % groups;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < w4a16::kValueBytes / 4; i += kThreads) {
    const int64_t row = tile * w4a16::kTileRows + i / 16, channel = group * w4a16::kGroup + i % 16 * 8;
    const w4a16::ChunkPlace place = w4a16::chunk_place(i / 16, i % 16);
    const __half2 scale = __half2half2(reinterpret_cast<const __half*>(unit + w4a16::kValueBytes)[i / 16]);
    uint32_t v[4];
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const uint32_t word = *reinterpret_cast<const uint32_t*>(unit + place.byte + 16 * pair);
      v[pair] = w4a16::dequantize_pair(word >> place.shift, scale);
    }
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

/// Where x lies, for copies of 64 channels of `tokens` tokens.
CUtensorMap map_of(const W4A16Args& args, int tokens) {
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found{};
  ATOM_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found));
  CUtensorMap map{};
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(args.k), static_cast<cuuint64_t>(args.m)};
  const cuuint64_t strides[] = {sizes[0] * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(tokens)}, steps[] = {1, 1};
  const CUresult result =
      found != cudaDriverEntryPointSuccess
          ? CUDA_ERROR_NOT_SUPPORTED
          : reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
                &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<void*>(args.x), sizes, strides, box,
                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw Error("CUDA: cuTensorMapEncodeTiled failed for W4A16's activations");
  return map;
}

template <int kTokens, int kTiles>
void launch_as(const W4A16Args& args, const w4a16::Params& p, cudaStream_t stream) {
  using Shape = w4a16::Shape<kTokens, kTiles>;
  const dim3 grid(static_cast<unsigned>((p.n + Shape::kRows - 1) / Shape::kRows * p.splits),
                  static_cast<unsigned>((p.m + kTokens - 1) / kTokens));
  LaunchOptions options;
  options.cluster = p.splits;
  launch(w4a16::w4a16_kernel<kTokens, kTiles>, grid, Shape::kThreads, Shape::kShared, stream, options, p,
         map_of(args, kTokens));
}

void stream_weights(const W4A16Args& args, cudaStream_t stream) {
  int device = 0, sm_count = 0;
  ATOM_CUDA_CHECK(cudaGetDevice(&device));
  ATOM_CUDA_CHECK(cudaDeviceGetAttribute(&sm_count, cudaDevAttrMultiProcessorCount, device));
  const w4a16::Config config = w4a16::choose(args.m, args.n, args.k, sm_count);
  w4a16::Params p = {};
  p.w = args.w;
  p.y = args.y;
  p.y_stride = args.y_stride != 0 ? args.y_stride : args.n;
  p.m = static_cast<int>(args.m);
  p.n = static_cast<int>(args.n);
  p.k = static_cast<int>(args.k);
  p.groups = static_cast<int>(groups_of(args.k));
  p.splits = config.splits;
  p.result = args.result;
  p.accumulate = args.accumulate;
  switch (config.tokens) {
    case 8:
      return launch_as<8, 1>(args, p, stream);
    case 16:
      return launch_as<16, 1>(args, p, stream);
    case 32:
      return launch_as<32, 1>(args, p, stream);
    default:
      return launch_as<64, 2>(args, p, stream);
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
