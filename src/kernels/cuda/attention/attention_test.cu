#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/attention_testing.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/runtime.h"
#include "tensor/half.h"

namespace atom::cuda {
namespace {

using testing::AttentionBatch;
using HostShape = testing::AttentionShape;

bool no_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) != cudaSuccess || count == 0;
}

#define SKIP_WITHOUT_DEVICE() \
  if (no_device()) GTEST_SKIP() << "no CUDA device"

class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes, int fill = 0xFF) {
    ATOM_CUDA_CHECK(cudaMalloc(&data_, std::max<size_t>(bytes, 16)));
    ATOM_CUDA_CHECK(cudaMemset(data_, fill, std::max<size_t>(bytes, 16)));
  }
  DeviceBuffer(const void* source, size_t bytes) : DeviceBuffer(bytes) {
    if (bytes > 0) ATOM_CUDA_CHECK(cudaMemcpy(data_, source, bytes, cudaMemcpyHostToDevice));
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }

  template <class T>
  T* as() {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

uint16_t to_16_bits(float x, DType type) {
  return type == DType::f16 ? float_to_half(x) : float_to_bfloat16(x);
}

float from_16_bits(uint16_t x, DType type) {
  return type == DType::f16 ? half_to_float(x) : bfloat16_to_float(x);
}

struct Options {
  bool exact = true;
  DType type = DType::f32;
  /// How far the bound of the contexts lies above the longest.
  int64_t slack = 0;
  /// The kernel ahead writes the sequences' own rows of the cache, and takes its time.
  bool late_rows = false;
};

/// A cache on the device: of the host's contents, or of bytes 0xFF.
class DeviceCache {
 public:
  DeviceCache(const KvLayerView& host, bool filled)
      : rows_(static_cast<size_t>(host.n_blocks * host.n_kv_heads * host.block_size)),
        keys_(rows_ * static_cast<size_t>(host.row_bytes())),
        values_(rows_ * static_cast<size_t>(host.row_bytes())),
        key_params_(rows_ * 4),
        value_params_(rows_ * 4),
        view_(host) {
    const auto put = [&](auto*& to, DeviceBuffer& buffer, size_t bytes) {
      if (to == nullptr) return;
      if (filled) ATOM_CUDA_CHECK(cudaMemcpy(buffer.as<void>(), to, bytes, cudaMemcpyHostToDevice));
      to = buffer.as<std::remove_reference_t<decltype(*to)>>();
    };
    put(view_.keys, keys_, rows_ * static_cast<size_t>(host.row_bytes()));
    put(view_.values, values_, rows_ * static_cast<size_t>(host.row_bytes()));
    put(view_.key_params, key_params_, rows_ * 4);
    put(view_.value_params, value_params_, rows_ * 4);
  }
  const KvLayerView& view() const { return view_; }

 private:
  size_t rows_;
  DeviceBuffer keys_, values_, key_params_, value_params_;
  KvLayerView view_;
};

/// Copies every sequence's own rows from one cache to another like it, `cycles` after the kernel behind may
/// begin. A block a sequence.
__global__ void copy_own_rows(KvLayerView from, KvLayerView to, const SequenceSpan* sequences,
                              int64_t cycles) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t begin = clock64();
  while (clock64() - begin < cycles) {
  }
  const SequenceSpan sequence = sequences[blockIdx.x];
  for (int64_t token = sequence.context - sequence.n_rows; token < sequence.context; ++token) {
    for (int64_t head = 0; head < to.n_kv_heads; ++head) {
      const int64_t row = to.row_index(sequence.blocks[token / to.block_size], head, token % to.block_size);
      for (int64_t i = row * to.row_bytes() + threadIdx.x; i < (row + 1) * to.row_bytes(); i += blockDim.x) {
        to.keys[i] = from.keys[i];
        to.values[i] = from.values[i];
      }
      if (to.key_params != nullptr && threadIdx.x < 2) {
        to.key_params[2 * row + threadIdx.x] = from.key_params[2 * row + threadIdx.x];
        to.value_params[2 * row + threadIdx.x] = from.value_params[2 * row + threadIdx.x];
      }
    }
  }
}

/// Runs `batch` on the device. The queries are rounded to options.type first, in the batch too.
std::vector<float> run_on_device(AttentionBatch& batch, const Options& options) {
  const Attention op = batch.op();
  const KvLayerView& view = op.cache;
  const DeviceCache cache(view, true);

  std::vector<int32_t> tables;
  std::vector<size_t> offsets;
  AttentionArgs args;
  for (const SequenceSpan& span : op.sequences) {
    offsets.push_back(tables.size());
    const int64_t n = (span.context + view.block_size - 1) / view.block_size;
    tables.insert(tables.end(), span.blocks, span.blocks + n);
    args.max_rows = std::max(args.max_rows, span.n_rows);
    args.min_rows = args.min_rows == 0 ? span.n_rows : std::min(args.min_rows, span.n_rows);
    args.max_context = std::max(args.max_context, span.context + options.slack);
  }
  DeviceBuffer device_tables(tables.data(), tables.size() * sizeof(int32_t));
  std::vector<SequenceSpan> spans(op.sequences.begin(), op.sequences.end());
  for (size_t i = 0; i < spans.size(); ++i) spans[i].blocks = device_tables.as<int32_t>() + offsets[i];
  DeviceBuffer device_spans(spans.data(), spans.size() * sizeof(SequenceSpan));

  const auto n = static_cast<size_t>(batch.q().rows() * batch.row_width());
  const size_t size = size_of(options.type);
  std::vector<uint16_t> narrow;
  if (options.type != DType::f32) {
    for (float& x : batch.q().span()) {
      narrow.push_back(to_16_bits(x, options.type));
      x = from_16_bits(narrow.back(), options.type);
    }
  }
  const void* source = options.type == DType::f32 ? static_cast<const void*>(batch.q().span().data())
                                                  : static_cast<const void*>(narrow.data());
  DeviceBuffer q(source, n * size);
  DeviceBuffer out(n * size);

  args.q = q.as<void>();
  args.q_dtype = options.type;
  args.q_stride = batch.row_width();
  args.out = out.as<void>();
  args.out_dtype = options.type;
  args.out_stride = batch.row_width();
  args.sequences = device_spans.as<SequenceSpan>();
  args.n_sequences = static_cast<int64_t>(spans.size());
  args.cache = cache.view();
  args.n_heads = op.n_heads;
  args.scale = op.scale;
  args.window = op.window;
  AttentionContext context;
  context.sm_count = sm_count();
  context.scratch_bytes = attention_scratch_bytes(args, context.sm_count, options.exact);
  DeviceBuffer scratch(context.scratch_bytes);
  context.scratch = scratch.as<void>();
  DeviceBuffer parts(kAttentionParts * kAttentionPartFloats * sizeof(float), 0xFF);
  context.parts = parts.as<float>();
  context.exact = options.exact;
  if (options.late_rows) {
    const DeviceCache nothing(view, false);
    const auto copy = [&](const DeviceCache& from, int64_t cycles) {
      launch(copy_own_rows, dim3(static_cast<unsigned>(spans.size())), dim3(128), 0, context.stream, {},
             from.view(), cache.view(), args.sequences, cycles);
    };
    copy(nothing, 0);
    ATOM_CUDA_CHECK(cudaDeviceSynchronize());
    const DeviceCache filled(view, true);
    copy(filled, 100'000);
    attention(context, args);
    ATOM_CUDA_CHECK(cudaDeviceSynchronize());
  } else {
    attention(context, args);
  }
  if (!options.exact && !options.late_rows) {
    // A second launch finds the parts as the first one did, and merges them in the same order.
    std::vector<std::byte> first(n * size), second(n * size);
    ATOM_CUDA_CHECK(cudaMemcpy(first.data(), out.as<void>(), n * size, cudaMemcpyDeviceToHost));
    ATOM_CUDA_CHECK(cudaMemset(out.as<void>(), 0xFF, n * size));
    attention(context, args);
    ATOM_CUDA_CHECK(cudaMemcpy(second.data(), out.as<void>(), n * size, cudaMemcpyDeviceToHost));
    EXPECT_EQ(first, second) << "two launches";
  }
  ATOM_CUDA_CHECK(cudaDeviceSynchronize());
  std::vector<uint32_t> left(kAttentionParts * kAttentionPartFloats);
  ATOM_CUDA_CHECK(
      cudaMemcpy(left.data(), parts.as<void>(), left.size() * sizeof(uint32_t), cudaMemcpyDeviceToHost));
  EXPECT_EQ(std::count(left.begin(), left.end(), ~uint32_t{0}), static_cast<int64_t>(left.size()))
      << "parts that were not restored";

  std::vector<float> result(n);
  if (options.type == DType::f32) {
    ATOM_CUDA_CHECK(cudaMemcpy(result.data(), out.as<void>(), n * size, cudaMemcpyDeviceToHost));
  } else {
    ATOM_CUDA_CHECK(cudaMemcpy(narrow.data(), out.as<void>(), n * size, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; ++i) result[i] = from_16_bits(narrow[i], options.type);
  }
  return result;
}

/// What the host chooses for the decode kernel, of one row a sequence.
DecodePlan plan_of(AttentionBatch& batch, int64_t slack) {
  int64_t longest = 0;
  for (const SequenceSpan& span : batch.spans()) longest = std::max(longest, span.context);
  const HostShape& shape = batch.shape();
  return plan_decode({static_cast<int64_t>(batch.spans().size()), 1, longest + slack,
                      shape.n_kv_heads * shape.group, shape.n_kv_heads, shape.head_dim},
                     shape.format, sm_count());
}

/// The fastest CPU implementation: all of them give the same bits.
std::vector<float> run_on_cpu(AttentionBatch& batch) {
  static ThreadPool pool(8);
  const DeviceContext device{&pool, detect_cpu_isa()};
  return batch.run(select(device, batch.op()).name, device);
}

std::string describe(const HostShape& shape) {
  return fmt::format("{} head_dim {} kv_heads {} group {} block {}", name_of(shape.format), shape.head_dim,
                     shape.n_kv_heads, shape.group, shape.block_size);
}

/// The same bits, or both NaN (whose sign differs between processors).
::testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "value " << i << " of " << a.size() << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

/// Relative to the norm of a head's output: fp16 operands round scores, weights and values to 2^-11.
constexpr double kTolerance = 4e-3;

::testing::AssertionResult close(const std::vector<float>& a, const std::vector<float>& expected,
                                 int64_t head_dim, double tolerance) {
  const auto width = static_cast<size_t>(head_dim);
  size_t worst_head = 0;
  double worst = 0.0;
  for (size_t head = 0; head < a.size() / width; ++head) {
    double error = 0.0;
    double norm = 0.0;
    for (size_t i = head * width; i < (head + 1) * width; ++i) {
      error += std::pow(static_cast<double>(a[i]) - static_cast<double>(expected[i]), 2);
      norm += std::pow(static_cast<double>(expected[i]), 2);
    }
    const double relative = std::sqrt(error / norm);
    // NaN is the worst.
    if (!(relative <= worst)) {
      worst = relative;
      worst_head = head;
    }
  }
  if (worst <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "head " << worst_head << " of " << a.size() / width << ": error " << worst << ", first values "
         << a[worst_head * width] << " and " << expected[worst_head * width];
}

/// The device goes first: it rounds the queries to what it is given.
::testing::AssertionResult fast_is_close(AttentionBatch& batch, const Options& options, int64_t head_dim,
                                         double tolerance) {
  const std::vector<float> result = run_on_device(batch, options);
  return close(result, run_on_cpu(batch), head_dim, tolerance);
}

const std::vector<int64_t> kContexts = {1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 2048};

std::vector<int64_t> ones() {
  return std::vector<int64_t>(kContexts.size(), 1);
}

TEST(CudaExactAttention, DecodeHasTheBitsOfTheCpu) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {32, 64, 96, 128, 200, 6}) {
      for (const int64_t group : {1, 3, 8}) {
        AttentionBatch batch({format, head_dim, 2, group, 16, 1.0f}, kContexts, ones());
        EXPECT_TRUE(same_bits(run_on_device(batch, {true, DType::f32, 0}), run_on_cpu(batch)))
            << describe(batch.shape());
      }
    }
  }
}

TEST(CudaExactAttention, MixedRowsHaveTheBitsOfTheCpu) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<int64_t> rows = {1, 15, 3, 1, 63, 2, 65, 40, 1, 513, 100};
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {64, 96, 128}) {
      for (const int64_t block_size : {8, 16, 256}) {
        AttentionBatch batch({format, head_dim, 1, block_size == 16 ? 3 : 4, block_size, 1.0f}, kContexts,
                             rows);
        EXPECT_TRUE(same_bits(run_on_device(batch, {true, DType::f32, 700}), run_on_cpu(batch)))
            << describe(batch.shape());
      }
    }
  }
}

TEST(CudaExactAttention, WindowsHaveTheBitsOfTheCpu) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<int64_t> rows = {1, 15, 3, 1, 63, 2, 65, 40, 1, 513, 1300};
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t window : {1, 15, 64, 65, 300, 512, 600, 5000}) {
      const HostShape shape{format, 64, 2, 3, 16, 1.0f, window};
      for (const auto& n_rows : {rows, ones()}) {
        AttentionBatch batch(shape, kContexts, n_rows);
        EXPECT_TRUE(same_bits(run_on_device(batch, {true, DType::f32, 700}), run_on_cpu(batch)))
            << describe(batch.shape()) << " window " << window;
      }
      // Too many blocks to split.
      AttentionBatch many(shape, std::vector<int64_t>(12, 1100), std::vector<int64_t>(12, 120));
      EXPECT_TRUE(same_bits(run_on_device(many, {true, DType::f32, 0}), run_on_cpu(many))) << window;
    }
  }
}

TEST(CudaExactAttention, ManyBlocksMergeTheirOwnSegments) {
  SKIP_WITHOUT_DEVICE();
  // Too many blocks to split: 2 KV heads, 12 sequences.
  std::vector<int64_t> contexts(12, 1100);
  for (size_t i = 0; i < contexts.size(); ++i) contexts[i] += static_cast<int64_t>(i) * 7;
  AttentionBatch batch({KvFormat::int4, 64, 4, 3, 16, 4.0f}, contexts, std::vector<int64_t>(12, 120));
  EXPECT_TRUE(same_bits(run_on_device(batch, {true, DType::f32, 0}), run_on_cpu(batch)));
}

TEST(CudaExactAttention, LargeAndNanScoresAreThoseOfTheCpu) {
  SKIP_WITHOUT_DEVICE();
  AttentionBatch batch({KvFormat::f32, 64, 2, 2, 16, 60.0f}, {100, 600}, {30, 5});
  batch.q()(3, 5) = std::numeric_limits<float>::quiet_NaN();
  batch.q()(4, 70) = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(same_bits(run_on_device(batch, {true, DType::f32, 0}), run_on_cpu(batch)));
}

TEST(CudaDecodeAttention, MatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {64, 128}) {
      for (const int64_t group : {1, 3, 4, 8, 12}) {
        AttentionBatch batch({format, head_dim, 2, group, group == 1 ? 8 : 16, 1.0f}, kContexts, ones());
        EXPECT_TRUE(fast_is_close(batch, {false, DType::f32, 100}, head_dim, kTolerance))
            << describe(batch.shape());
      }
    }
  }
}

TEST(CudaDecodeAttention, SeveralRowsEachSeeTheirOwnPast) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<int64_t> rows = {1, 4, 4, 3, 2, 1, 4, 4, 1, 4, 4};
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    AttentionBatch batch({format, 128, 2, 4, 32, 1.0f}, kContexts, rows);
    EXPECT_TRUE(fast_is_close(batch, {false, DType::f16, 0}, 128, kTolerance)) << describe(batch.shape());
  }
}

TEST(CudaDecodeAttention, WaitsForTheRowsOfTheKernelAhead) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<int64_t> rows = {1, 4, 4, 3, 2, 1, 4, 4, 1, 4, 4};
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {64, 128}) {
      AttentionBatch batch({format, head_dim, 2, 4, 16, 1.0f}, kContexts, rows);
      EXPECT_TRUE(fast_is_close(batch, {false, DType::f32, 0, true}, head_dim, kTolerance))
          << describe(batch.shape());
      AttentionBatch deep({format, head_dim, 2, 4, 16, 3.0f}, {12345}, {1});
      EXPECT_TRUE(fast_is_close(deep, {false, DType::f32, 0, true}, head_dim, kTolerance));
    }
  }
}

TEST(CudaDecodeAttention, ManySequencesAndLongContexts) {
  SKIP_WITHOUT_DEVICE();
  std::vector<int64_t> contexts;
  for (int64_t i = 0; i < 70; ++i) contexts.push_back(1 + i * 29 % 900);
  AttentionBatch many({KvFormat::int4, 128, 8, 1, 16, 1.0f}, contexts, std::vector<int64_t>(70, 1));
  EXPECT_TRUE(fast_is_close(many, {false, DType::bf16, 0}, 128, 8e-3));
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    AttentionBatch deep({format, 128, 2, 4, 16, 3.0f}, {12345}, {1});
    EXPECT_TRUE(fast_is_close(deep, {false, DType::f32, 0}, 128, kTolerance));
  }
}

TEST(CudaDecodeAttention, PartsOfSeveralRounds) {
  SKIP_WITHOUT_DEVICE();
  // More parts than run at one time, of blocks of 4 warps; fewer of them than columns, and some empty.
  struct Case {
    KvFormat format;
    int64_t sequences, kv_heads, longest;
  };
  for (const auto& [format, sequences, kv_heads, longest] :
       {Case{KvFormat::f16, 37, 4, 384}, Case{KvFormat::int4, 99, 8, 512}}) {
    const auto n = static_cast<size_t>(sequences);
    std::vector<int64_t> contexts(n, longest);
    for (size_t i = 0; i < n; ++i) contexts[i] -= static_cast<int64_t>(i) * 53 % 290;
    for (const int64_t group : {1, 4, 8}) {
      AttentionBatch batch({format, 128, kv_heads, group, 16, 1.0f}, contexts, std::vector<int64_t>(n, 1));
      const DecodePlan plan = plan_of(batch, 0);
      EXPECT_GT(plan.splits, 1);
      EXPECT_EQ(plan.warps, 4);
      EXPECT_GT(plan.items(), decode_warps_per_sm(format) / 4 * sm_count());
      EXPECT_TRUE(fast_is_close(batch, {false, DType::f32, 0}, 128, kTolerance)) << describe(batch.shape());
    }
  }
}

TEST(CudaDecodeAttention, StaggeredBlocks) {
  SKIP_WITHOUT_DEVICE();
  std::vector<int64_t> contexts(60);
  for (size_t i = 0; i < contexts.size(); ++i) contexts[i] = 1 + static_cast<int64_t>(i * 37 % 300);
  AttentionBatch batch({KvFormat::int4, 128, 32, 1, 16, 1.0f}, contexts, std::vector<int64_t>(60, 1));
  EXPECT_GT(plan_of(batch, 2000).stagger, 0);
  EXPECT_TRUE(fast_is_close(batch, {false, DType::f32, 2000}, 128, kTolerance));
}

TEST(CudaDecodeAttention, NanIsMerged) {
  SKIP_WITHOUT_DEVICE();
  const auto count_nan = [](const std::vector<float>& x, size_t begin, size_t end) {
    const auto at = [&](size_t i) { return x.begin() + static_cast<std::ptrdiff_t>(i); };
    return std::count_if(at(begin), at(end), [](float v) { return std::isnan(v); });
  };
  // One sequence in many parts, which are told from missing ones by their bits.
  for (const int64_t group : {1, 4, 8}) {
    const HostShape shape{KvFormat::int4, 128, 2, group, 16, 1.0f};
    const size_t of_head = static_cast<size_t>(group * 128);
    // Of a query: in all parts of its column.
    AttentionBatch query(shape, {5000}, {1});
    EXPECT_GT(plan_of(query, 0).splits, 1);
    query.q()(0, 5) = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> of_query = run_on_device(query, {false, DType::f32, 0});
    EXPECT_EQ(count_nan(of_query, 0, of_query.size()), 128);
    EXPECT_EQ(count_nan(of_query, 0, 128), 128);
    // Of a key's scale, of a value's scale, of a value's minimum: in one part of all columns of a KV head.
    for (const int what : {0, 1, 2}) {
      AttentionBatch cached(shape, {5000}, {1});
      const KvLayerView& view = cached.view();
      const int64_t row = view.row_index(cached.spans()[0].blocks[3000 / 16], 1, 3000 % 16);
      (what == 0 ? view.key_params : view.value_params)[2 * row + (what == 2 ? 1 : 0)] = 0xFFFF;
      const std::vector<float> result = run_on_device(cached, {false, DType::f32, 0});
      EXPECT_EQ(count_nan(result, 0, of_head), 0);
      EXPECT_EQ(count_nan(result, of_head, 2 * of_head), static_cast<int64_t>(of_head)) << what;
    }
  }
}

TEST(CudaPrefillAttention, MatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<int64_t> rows = {1, 15, 3, 1, 63, 30, 65, 40, 130, 513, 200};
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {64, 128}) {
      for (const int64_t block_size : {8, 16, 64, 256}) {
        AttentionBatch batch({format, head_dim, 2, block_size == 16 ? 3 : 1, block_size, 1.0f}, kContexts,
                             rows);
        EXPECT_TRUE(fast_is_close(batch, {false, DType::f32, 0}, head_dim, kTolerance))
            << describe(batch.shape());
      }
    }
  }
}

TEST(CudaPrefillAttention, LongChunks) {
  SKIP_WITHOUT_DEVICE();
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    AttentionBatch batch({KvFormat::int4, 128, 2, 4, 16, 2.0f}, {1500, 2300}, {1500, 700});
    EXPECT_TRUE(fast_is_close(batch, {false, type, 0}, 128, type == DType::bf16 ? 8e-3 : kTolerance))
        << name_of(type);
  }
}

}  // namespace
}  // namespace atom::cuda
