// Sample: one token of each row of logits [rows, vocab] f32, by temperature, top-k, top-p and min-p; the
// reference's tokens to the bit. A cluster of 1 to 8 blocks a row, each with a span of its chunks of 256.
// Passes over the row, which the L2 cache holds after the first:
//   1. the largest and the least logit;
//   2. where top-k or top-p is asked for: how many tokens lie in each of 2,048 equal intervals of logits
//   below
//      the largest, and the sum of all weights. The counts bound the sum of every beginning of the order from
//      both sides, so that the filter's last token lies in an interval or a few;
//   3. the sum of the intervals before those, chunk by chunk, and a list of the tokens in them: sorted and
//      summed, it gives that last token. (With top-k and top-p: once for each.)
// Then the chunk that the draw falls into is found from the chunks' sums, and the token in it. Where the list
// would be too long (very many equal logits), the last token is found by bisection, with a pass a step.
// All sums are integers (kernels/sampling.h), so their order does not matter.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/sample.h"
#include "kernels/cuda/fused/sample_row.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace sample_row;
using fused::best_key;
using fused::block_min;
using fused::kNoKey;

/// What the tokens of a beginning of the order are summed by.
enum class Measure { count, weight };

/// The last token that a filter keeps, and the weight of all that it keeps.
struct Last {
  uint64_t key;
  uint64_t weight;
};

/// Pass 1. False when no logit is finite.
__device__ bool find_extremes(Row& row, float& least, Shared& shared) {
  float high = -INFINITY, low = INFINITY;
  row.for_each_chunk_as_is([&](int64_t, const float(&logits)[kPerLane], uint32_t) {
#pragma unroll
    for (const float logit : logits) {
      const bool finite = fabsf(logit) < INFINITY;
      high = fmaxf(high, finite ? logit : -INFINITY);
      low = fminf(low, finite ? logit : INFINITY);
    }
  });
  auto* scratch = reinterpret_cast<float*>(shared.sums);
  high = -block_min<kWarps>(-high, scratch);
  low = block_min<kWarps>(low, scratch);
  if (threadIdx.x == 0) shared.extremes = {high, low};
  cluster_sync();
  for_each_block(shared.extremes, [&](float2 extremes, uint32_t) {
    high = fmaxf(high, extremes.x);
    low = fminf(low, extremes.y);
  });
  row.largest = high;
  least = low;
  return high > -INFINITY;
}

/// Of the largest logits the first.
__device__ void sample_greedy(const Row& row, int32_t* out, Shared& shared) {
  uint64_t best = kNoKey;
  row.for_each_chunk_as_is([&](int64_t, const float(&logits)[kPerLane], uint32_t id) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (logits[j] == row.largest)
        best = min(best, static_cast<uint64_t>(id + 32u * static_cast<uint32_t>(j)));
    }
  });
  best = block_min<kWarps>(best, shared.sums);
  if (threadIdx.x == 0) shared.drawn = best;
  cluster_sync();
  for_each_block(shared.drawn, [&](uint64_t other, uint32_t) { best = min(best, other); });
  if (cluster_rank() == 0 && threadIdx.x == 0) *out = static_cast<int32_t>(best);
}

/// Pass 2: tokens in the bins of this thread, in all of the row; returns the sum of all weights.
__device__ uint64_t count_bins(const Row& row, uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) shared.counts[i] = 0;
  __syncthreads();
  uint64_t sum = 0;
  row.for_each_chunk([&](int64_t, const float(&logits)[kPerLane], uint32_t) {
#pragma unroll
    for (const float logit : logits) {
      // Below kFaintest this is 0 of itself.
      sum += sampling::weight_of(row.relative(logit));
      const int bin = min(static_cast<int>(row.place(logit)), kBins - 1);
      if (row.is_possible(logit)) atomicAdd(&shared.counts[bin], 1u);
    }
  });
  sum = block_scan(sum, shared.sums).total;
  if (threadIdx.x == 0) shared.total = sum;
  cluster_sync();
  static_assert(kBinsPerThread == 4);
#pragma unroll
  for (uint32_t& count : counts) count = 0;
  for_each_block(reinterpret_cast<const uint4*>(shared.counts)[threadIdx.x], [&](uint4 part, uint32_t) {
    counts[0] += part.x;
    counts[1] += part.y;
    counts[2] += part.z;
    counts[3] += part.w;
  });
  return cluster_sum(shared.total);
}

/// The bin of the token number `wanted` of the order, and how many tokens the bins before it have; false when
/// there are no more than `wanted`.
__device__ bool find_bin_by_count(uint64_t wanted, const uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  uint64_t own = 0;
#pragma unroll
  for (const uint32_t count : counts) own += count;
  const auto scan = block_scan(own, shared.sums);
  if (scan.total <= wanted) return false;
  if (scan.before < wanted && wanted <= scan.with) {
    uint64_t before = scan.before;
    int i = 0;
    while (before + counts[i] < wanted) before += counts[i++];
    shared.first_bin = shared.last_bin = static_cast<int>(threadIdx.x) * kBinsPerThread + i;
    shared.count_above = before;
  }
  __syncthreads();
  return true;
}

/// The bins in which the last token of the shortest beginning with a weight of at least `wanted` must be.
/// `total`: of all tokens.
__device__ void find_bins_by_weight(const Row& row, uint64_t wanted, uint64_t total,
                                    const uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  if (threadIdx.x == 0) {
    shared.first_bin = kBins - 1;
    shared.last_bin = kBins - 1;
  }
  const int first = static_cast<int>(threadIdx.x) * kBinsPerThread;
  // Weights of a bin lie between those of its ends; a little more for rounding.
  constexpr float kMargin = 0x1p-12f;
  const float step = row.inverse_temperature / row.bin_scale;
  double upper = 0, lower = 0;
  double uppers[kBinsPerThread], lowers[kBinsPerThread];
  float edge = numerics::exp(-static_cast<float>(first) * step) * 0x1p40f;
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    upper += static_cast<double>(edge * (1.0f + kMargin)) * counts[i];
    const int next = first + i + 1;
    edge = next < kBins ? numerics::exp(-static_cast<float>(next) * step) * 0x1p40f : 0.0f;
    lower += static_cast<double>(fmaxf(edge * (1.0f - kMargin) - 1.0f, 0.0f)) * counts[i];
    uppers[i] = upper;
    lowers[i] = lower;
  }
  const auto above = block_scan(upper, shared.upper);
  const auto below = block_scan(lower, shared.lower);
  const auto want = static_cast<double>(wanted);
  const auto all = static_cast<double>(total);
#pragma unroll
  for (int i = kBinsPerThread - 1; i >= 0; --i) {
    // The sum up to a bin is also what the bins behind it leave of the whole.
    const double most = above.before + uppers[i], least = below.before + lowers[i];
    const double rest_most = above.total - most, rest_least = below.total - least;
    if (fmin(most, all - rest_least) >= want) atomicMin(&shared.first_bin, first + i);
    if (fmax(least, all - rest_most) >= want) atomicMin(&shared.last_bin, first + i);
  }
  __syncthreads();
}

/// Pass 3: into chunk_sums the weights of the tokens that come before first_bin and pass min-p, chunk by
/// chunk; into shared.above those of all that come before it; into shared.list the tokens in the bins.
__device__ void sum_and_list(const Row& row, int first_bin, int last_bin, uint64_t* chunk_sums,
                             Shared& shared) {
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
  const auto begin = static_cast<float>(first_bin);
  const float end = last_bin < kBins - 1 ? static_cast<float>(last_bin + 1) : INFINITY;
  uint64_t above = 0;
  row.for_each_chunk([&](int64_t chunk, const float(&logits)[kPerLane], uint32_t id) {
    uint32_t in_bins = 0;
    bool is_above = false;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float place = row.place(logits[j]);
      is_above |= place < begin;
      if (place >= begin && place < end && row.is_possible(logits[j])) in_bins |= 1u << j;
    }
    if (in_bins != 0) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        if ((in_bins >> j & 1) == 0) continue;
        const uint32_t at = atomicAdd(&shared.listed, 1u);
        if (at < kListSize) shared.list[at] = best_key(logits[j], id + 32u * static_cast<uint32_t>(j));
      }
    }
    uint64_t kept = 0;
    if (__any_sync(~0u, is_above)) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        const float relative = row.relative(logits[j]);
        const uint64_t weight = row.place(logits[j]) < begin ? sampling::weight_of(relative) : 0;
        above += weight;
        kept += relative >= row.least_relative ? weight : 0;
      }
      kept = warp_sum(kept);
    }
    if (threadIdx.x % 32 == 0) chunk_sums[chunk - row.first_chunk] = kept;
  });
  above = block_scan(above, shared.sums).total;
  if (threadIdx.x == 0) shared.above = above;
  cluster_sync();
}

/// Copies the lists of all blocks to shared.merged and sorts them; -1 when they are too long.
__device__ int merge_lists(Shared& shared) {
  uint32_t total = 0;
  for_each_block(shared.listed, [&](uint32_t listed, uint32_t rank) {
    if (total + listed <= kListSize) {
      for (uint32_t i = threadIdx.x; i < listed; i += kThreads) {
        shared.merged[total + i] = of_block(shared.list[i], rank);
      }
    }
    total += listed;
  });
  if (total > kListSize) return -1;
  bitonic_sort(shared.merged, static_cast<int>(total));
  return static_cast<int>(total);
}

/// In the sorted list of n: the token with which the sum, that of the bins before included, reaches `wanted`;
/// false when none does, or those bins do already.
__device__ bool find_in_list(const Row& row, Measure measure, uint64_t wanted, uint64_t above, int n,
                             Last& last, Shared& shared) {
  constexpr int kEach = kListSize / kThreads;
  if (threadIdx.x == 0) shared.found_key = kNoKey;
  const int first = static_cast<int>(threadIdx.x) * kEach;
  uint64_t weights[kEach];
  uint64_t own = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    weights[i] = first + i < n ? sampling::weight_of(row.relative(logit_of(shared.merged[first + i]))) : 0;
    own += weights[i];
  }
  uint64_t weight = above + block_scan(own, shared.sums).before;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const uint64_t count = shared.count_above + static_cast<uint64_t>(first + i);
    const uint64_t had = measure == Measure::count ? count : weight;
    weight += weights[i];
    const uint64_t has = measure == Measure::count ? count + 1 : weight;
    if (first + i < n && had < wanted && has >= wanted) {
      shared.found_key = shared.merged[first + i];
      shared.found_weight = weight;
    }
  }
  __syncthreads();
  last = {shared.found_key, shared.found_weight};
  return last.key != kNoKey;
}

/// The sum over the row of the tokens up to `key`. `slot` alternates, as blocks may still be reading the last
/// sum.
__device__ uint64_t sum_up_to(const Row& row, Measure measure, uint64_t key, int slot, Shared& shared) {
  uint64_t sum = 0;
  row.for_each_chunk([&](int64_t, const float(&logits)[kPerLane], uint32_t id) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (!row.is_possible(logits[j])) continue;
      if (best_key(logits[j], id + 32u * static_cast<uint32_t>(j)) > key) continue;
      sum += measure == Measure::count ? 1 : sampling::weight_of(row.relative(logits[j]));
    }
  });
  sum = block_scan(sum, shared.sums).total;
  if (threadIdx.x == 0) shared.bisected[slot] = sum;
  cluster_sync();
  return cluster_sum(shared.bisected[slot]);
}

/// The last token by bisection of the keys.
__device__ Last bisect(const Row& row, Measure measure, uint64_t wanted, float least, Shared& shared) {
  const uint64_t ids = static_cast<uint64_t>(row.vocab - 1);
  uint64_t low = best_key(row.largest, 0), high = best_key(least, static_cast<uint32_t>(ids));
  int slot = 0;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (sum_up_to(row, measure, middle, slot, shared) >= wanted) {
      high = middle;
    } else {
      low = middle + 1;
    }
    if (low >> 32 == high >> 32) high = min(high, (high >> 32 << 32) + ids);
    slot ^= 1;
  }
  return {low, sum_up_to(row, Measure::weight, low, slot, shared)};
}

/// The weights, chunk by chunk, of the tokens up to `key` that pass min-p.
__device__ void sum_chunks(const Row& row, uint64_t key, uint64_t* chunk_sums) {
  row.for_each_chunk([&](int64_t chunk, const float(&logits)[kPerLane], uint32_t id) {
    uint64_t kept = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float relative = row.relative(logits[j]);
      const bool is_kept =
          relative >= row.least_relative && best_key(logits[j], id + 32u * static_cast<uint32_t>(j)) <= key;
      kept += is_kept ? sampling::weight_of(relative) : 0;
    }
    kept = warp_sum(kept);
    if (threadIdx.x % 32 == 0) chunk_sums[chunk - row.first_chunk] = kept;
  });
}

/// The last token of the shortest beginning with at least `wanted`, which lies in the bins that shared says
/// or near; and the chunks' sums of what it leaves.
__device__ Last select(const Row& row, Measure measure, uint64_t wanted, float least, uint64_t* chunk_sums,
                       Shared& shared) {
  sum_and_list(row, shared.first_bin, shared.last_bin, chunk_sums, shared);
  const uint64_t above = cluster_sum(shared.above);
  const int n = merge_lists(shared);
  Last last{};
  if (n < 0 || !find_in_list(row, measure, wanted, above, n, last, shared)) {
    last = bisect(row, measure, wanted, least, shared);
    sum_chunks(row, last.key, chunk_sums);
    return last;
  }
  // What the list adds to the block's own chunks.
  for (int i = static_cast<int>(threadIdx.x); i < n && shared.merged[i] <= last.key; i += kThreads) {
    const int64_t chunk = static_cast<int64_t>(shared.merged[i] & 0xFFFFFFFFu) / kChunk;
    if (chunk < row.first_chunk || chunk >= row.end_chunk) continue;
    const float relative = row.relative(logit_of(shared.merged[i]));
    if (relative < row.least_relative) continue;
    atomicAdd(reinterpret_cast<unsigned long long*>(chunk_sums + (chunk - row.first_chunk)),
              static_cast<unsigned long long>(sampling::weight_of(relative)));
  }
  return last;
}

/// The draw among the tokens up to `key`, from the chunks' sums.
__device__ void draw(const Row& row, uint64_t key, uint64_t random, const uint64_t* chunk_sums, int32_t* out,
                     Shared& shared) {
  __syncthreads();
  const int64_t chunks = row.end_chunk - row.first_chunk;
  const int64_t each = (chunks + kThreads - 1) / kThreads;
  const int64_t begin = min(threadIdx.x * each, chunks), end = min(begin + each, chunks);
  uint64_t own = 0;
  for (int64_t chunk = begin; chunk < end; ++chunk) own += chunk_sums[chunk];
  const Scan<uint64_t> scan = block_scan(own, shared.sums);
  if (threadIdx.x == 0) shared.drawn = scan.total;
  cluster_sync();
  uint64_t before = 0, total = 0;
  for_each_block(shared.drawn, [&](uint64_t part, uint32_t rank) {
    if (rank == cluster_rank()) before = total;
    total += part;
  });
  const uint64_t target = sampling::target_of(random, total);
  if (target < before || target - before >= scan.total) return;
  uint64_t rest = target - before;
  if (scan.before <= rest && rest < scan.with) {
    rest -= scan.before;
    int64_t chunk = begin;
    while (rest >= chunk_sums[chunk]) rest -= chunk_sums[chunk++];
    shared.chunk = row.first_chunk + chunk;
    shared.rest = rest;
  }
  __syncthreads();
  const int64_t id = shared.chunk * kChunk + threadIdx.x;
  uint64_t weight = 0;
  const bool is_in_chunk = threadIdx.x < kChunk && id < row.vocab;
  const float logit = is_in_chunk ? row.drawable(row.x[id]) : -INFINITY;
  if (best_key(logit, static_cast<uint32_t>(id)) <= key) {
    const float relative = row.relative(logit);
    if (relative >= row.least_relative) weight = sampling::weight_of(relative);
  }
  const Scan<uint64_t> within = block_scan(weight, shared.sums);
  if (within.before <= shared.rest && shared.rest < within.with) *out = static_cast<int32_t>(id);
}

__device__ void sample_one(Row& row, const SampleParams& params, int32_t* out, uint64_t* chunk_sums,
                           Shared& shared) {
  float least;
  if (!find_extremes(row, least, shared)) {
    if (cluster_rank() == 0 && threadIdx.x == 0) *out = -1;
    return;
  }
  if (sampling::is_greedy(params.temperature)) {
    sample_greedy(row, out, shared);
    return;
  }
  row.inverse_temperature = 1.0f / params.temperature;
  row.least_relative = sampling::least_relative(params.min_p);
  // The bins' ends are anywhere, as long as their order is the logits'.
  const float reach = fminf(row.largest - least, -sampling::kFaintest * params.temperature);
  row.bin_scale = static_cast<float>(kBins) / fmaxf(fminf(reach, FLT_MAX), 1e-30f);

  uint64_t last = kNoKey;
  const bool by_count = params.top_k > 0 && params.top_k < row.vocab, by_weight = params.top_p < 1.0f;
  bool is_summed = false;
  if (by_count || by_weight) {
    uint32_t counts[kBinsPerThread];
    const uint64_t total = count_bins(row, counts, shared);
    uint64_t kept = total;
    if (by_count && find_bin_by_count(static_cast<uint64_t>(params.top_k), counts, shared)) {
      const Last kth =
          select(row, Measure::count, static_cast<uint64_t>(params.top_k), least, chunk_sums, shared);
      last = kth.key;
      kept = kth.weight;
      is_summed = true;
      // The others may still be reading what the next pass writes.
      if (by_weight) cluster_sync();
    }
    if (by_weight) {
      const uint64_t wanted = sampling::share_of(params.top_p, kept);
      find_bins_by_weight(row, wanted, total, counts, shared);
      last = select(row, Measure::weight, wanted, least, chunk_sums, shared).key;
      is_summed = true;
    }
  }
  if (!is_summed) sum_chunks(row, last, chunk_sums);
  draw(row, last, params.random, chunk_sums, out, shared);
}

__global__ void __launch_bounds__(kThreads, 2)
    sample_kernel(const float* logits, int64_t vocab, int64_t stride, const SampleParams* params,
                  int32_t* out) {
  extern __shared__ uint64_t chunk_sums[];
  __shared__ Shared shared;
  launch_dependents();
  wait_for_dependencies();
  const int64_t at = blockIdx.x / cluster_size();
  const int64_t chunks = (vocab + kChunk - 1) / kChunk;
  const int64_t each = (chunks + cluster_size() - 1) / cluster_size();
  Row row{};
  row.x = logits + at * stride;
  row.vocab = vocab;
  row.first_chunk = min(cluster_rank() * each, chunks);
  row.end_chunk = min(row.first_chunk + each, chunks);
  sample_one(row, params[at], out + at, chunk_sums, shared);
  // Shared memory that another block may be reading.
  cluster_sync();
}

}  // namespace

void sample(const Sample& op, int cluster, cudaStream_t stream) {
  const MatrixView<const float>& logits = op.logits;
  fused::expect(logits.cols > 0 && logits.cols <= sampling::kMaxVocabulary, "sample: too many logits a row");
  fused::expect(static_cast<int64_t>(op.params.size()) == logits.rows &&
                    static_cast<int64_t>(op.out.size()) == logits.rows,
                "sample: parameters and results are one a row");
  if (logits.rows == 0) return;
  const int64_t chunks = (logits.cols + kChunk - 1) / kChunk;
  const auto bytes = static_cast<size_t>((chunks + cluster - 1) / cluster) * sizeof(uint64_t);
  LaunchOptions options;
  options.cluster = cluster;
  launch(sample_kernel, dim3(static_cast<unsigned>(logits.rows * cluster)), kThreads, bytes, stream, options,
         logits.data, logits.cols, logits.stride, op.params.data(), op.out.data());
}

void sample(const Sample& op, cudaStream_t stream) {
  // Blocks for all multiprocessors, two on each, as long as every warp has a chunk.
  int cluster = 1;
  while (cluster < 8 && op.logits.rows * cluster * 2 <= 256 &&
         op.logits.cols > int64_t{cluster} * kChunk * kWarps)
    cluster *= 2;
  sample(op, cluster, stream);
}

}  // namespace atom::cuda
