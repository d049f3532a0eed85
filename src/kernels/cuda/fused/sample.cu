// Sample: one token of each row of logits [rows, vocab] f32, by temperature, top-k, top-p and min-p; the
// reference's tokens to the bit. A cluster of 1 to 8 blocks a row, each with a span of its chunks of 256.
// Passes over the row, which the L2 cache holds after the first:
//   1. the largest and the least logit;
//   2. where top-k or top-p is asked for: how many tokens lie in each of 2,048 equal intervals below the
//      largest logit, and the sum of all weights. The counts bound the sum of every beginning of the order
//      from both sides, so that the filter's last token lies in an interval or a few;
//   3. the sum of the intervals before those, chunk by chunk, and a list of the tokens in them: sorted and
//      summed, it gives that last token. (With top-k and top-p: once for each.)
// Then the chunk that the draw falls into is found from the chunks' sums, and the token in it. Where the list
// would be too long (very many equal logits), the last token is found by bisection, with a pass a step.
// All sums are integers (kernels/sampling.h), so their order does not matter.

#include "kernels/cuda/fused/device.cuh"
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

/// Of a block: their chunks' sums fit into shared memory.
constexpr int64_t kMaxColumns = int64_t{1} << 21;

/// What the tokens of a beginning of the order are summed by.
enum class Measure { count, weight };

/// Pass 1. False when no logit is finite.
__device__ bool find_extremes(Row& row, float& least, Shared& shared) {
  float high = -INFINITY, low = INFINITY;
  row.for_each_chunk_as_is([&](int, const float(&logits)[kPerLane], uint32_t) {
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
  const float2 extremes = of_lane(shared.extremes, {-INFINITY, INFINITY});
  row.largest = fused::warp_max(extremes.x);
  least = fused::warp_min(extremes.y);
  return row.largest > -INFINITY;
}

/// Of the largest logits the first.
__device__ void sample_greedy(const Row& row, int32_t* out, Shared& shared) {
  uint32_t best = ~0u;
  row.for_each_chunk_as_is([&](int, const float(&logits)[kPerLane], uint32_t id) {
#pragma unroll
    for (int j = kPerLane - 1; j >= 0; --j) {
      if (logits[j] == row.largest) best = min(best, id + 32u * static_cast<uint32_t>(j));
    }
  });
  best = block_min<kWarps>(best, reinterpret_cast<uint32_t*>(shared.sums));
  if (threadIdx.x == 0) shared.drawn = best;
  cluster_sync();
  best = __reduce_min_sync(~0u, static_cast<uint32_t>(of_lane(shared.drawn, uint64_t{~0u})));
  if (ptx::cluster_rank() == 0 && threadIdx.x == 0) *out = static_cast<int32_t>(best);
}

/// Pass 2: tokens in the bins of this thread, in all of the row; returns the sum of all weights.
__device__ uint64_t count_bins(const Row& row, uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i <= kBins; i += kThreads) shared.counts[i] = 0;
  __syncthreads();
  uint64_t sum = 0;
  row.for_each_chunk([&](int, const float(&logits)[kPerLane], uint32_t) {
#pragma unroll
    for (const float logit : logits) {
      const float exponent = row.exponent(logit);
      // Below kFaintest this is 0 of itself.
      sum += sampling::weight_of(numerics::exp_term(exponent));
      // Behind the bins: tokens without weight.
      const int bin = exponent >= sampling::kFaintest ? static_cast<int>(row.place(exponent)) : kBins;
      atomicAdd(&shared.counts[bin], 1u);
    }
  });
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x == 0) shared.total = sum;
  cluster_sync();
  static_assert(kBinsPerThread == 2);
#pragma unroll
  for (uint32_t& count : counts) count = 0;
#pragma unroll 2
  for (uint32_t rank = 0; rank < cluster_size(); ++rank) {
    const uint2 part = of_block(reinterpret_cast<const uint2*>(shared.counts)[threadIdx.x], rank);
    counts[0] += part.x;
    counts[1] += part.y;
  }
  return cluster_sum(shared.total);
}

/// The bin of the token number `wanted` of the order, and how many tokens the bins before it have; false when
/// there are no more than `wanted`.
__device__ bool find_bin_by_count(uint32_t wanted, const uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  const auto scan = block_scan(counts[0] + counts[1], reinterpret_cast<uint32_t*>(shared.sums));
  if (scan.total <= wanted) return false;
  if (scan.before < wanted && wanted <= scan.with) {
    uint32_t before = scan.before;
    int bin = static_cast<int>(threadIdx.x) * kBinsPerThread;
#pragma unroll
    for (const uint32_t count : counts) {
      if (before < wanted && wanted <= before + count) {
        shared.first_bin = shared.last_bin = bin;
        shared.count_above = before;
      }
      before += count;
      ++bin;
    }
  }
  __syncthreads();
  return true;
}

/// The bins in which the last token of the shortest beginning with a weight of at least `wanted` must be.
/// `total`: of all tokens.
__device__ void find_bins_by_weight(const Row& row, int64_t wanted, int64_t total,
                                    const uint32_t (&counts)[kBinsPerThread], Shared& shared) {
  // What rounding may leave of the crossings below, and if none of the bounds holds.
  if (threadIdx.x == 0) {
    shared.first_bin = 0;
    shared.last_bin = kBins - 1;
  }
  const int first = static_cast<int>(threadIdx.x) * kBinsPerThread;
  // Weights of a bin lie between those of its ends; a little more for rounding.
  constexpr float kMargin = 0x1p-12f;
  const float step = 1.0f / row.bin_scale;
  int64_t upper[kBinsPerThread], lower[kBinsPerThread];
  int64_t upper_sum = 0, lower_sum = 0;
  float edge = numerics::exp_term(-static_cast<float>(first) * step) * 0x1p40f;
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    upper[i] = static_cast<int64_t>(edge * (1.0f + kMargin)) * counts[i];
    edge = numerics::exp_term(-static_cast<float>(first + i + 1) * step) * 0x1p40f;
    lower[i] = static_cast<int64_t>(fmaxf(edge * (1.0f - kMargin) - 1.0f, 0.0f)) * counts[i];
    upper_sum += upper[i];
    lower_sum += lower[i];
  }
  const auto above = block_scan(upper_sum, reinterpret_cast<int64_t*>(shared.sums));
  const auto below = block_scan(lower_sum, reinterpret_cast<int64_t*>(shared.sums));
  // The sum up to a bin is also what the bins behind it leave of the whole.
  const auto reaches_at_most = [&](int64_t up_to, int64_t low) {
    return min(up_to, total - (below.total - low)) >= wanted;
  };
  const auto reaches_at_least = [&](int64_t up_to, int64_t high) {
    return max(up_to, total - (above.total - high)) >= wanted;
  };
  int64_t high = above.before, low = below.before;
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const bool may_before = reaches_at_most(high, low), must_before = reaches_at_least(low, high);
    high += upper[i];
    low += lower[i];
    if (!may_before && reaches_at_most(high, low)) shared.first_bin = first + i;
    if (!must_before && reaches_at_least(low, high)) shared.last_bin = first + i;
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
  const auto end = static_cast<float>(last_bin + 1);
  uint64_t above = 0;
  row.for_each_chunk([&](int chunk, const float(&logits)[kPerLane], uint32_t id) {
    uint32_t in_bins = 0;
    bool is_above = false;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float exponent = row.exponent(logits[j]), place = row.place(exponent);
      is_above |= place < begin;
      if (place >= begin && place < end && exponent >= sampling::kFaintest) in_bins |= 1u << j;
    }
    if (in_bins != 0) {
      auto at = atomicAdd(&shared.listed, static_cast<uint32_t>(__popc(in_bins)));
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        if ((in_bins >> j & 1) == 0) continue;
        if (at < kListSize) shared.list[at] = best_key(logits[j], id + 32u * static_cast<uint32_t>(j));
        ++at;
      }
    }
    uint64_t kept = 0;
    if (__any_sync(~0u, is_above)) {
      uint64_t dropped = 0;
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        const float exponent = row.exponent(logits[j]);
        const float relative = numerics::exp_term(exponent);
        const uint64_t weight = sampling::weight_of(row.place(exponent) < begin ? relative : 0.0f);
        kept += weight;
        if (row.least_relative > 0.0f) dropped += relative < row.least_relative ? weight : 0;
      }
      above += kept;
      kept = warp_sum(kept - dropped);
    }
    if (threadIdx.x % 32 == 0) chunk_sums[chunk - row.first_chunk] = kept;
  });
  above = block_sum(above, shared.sums);
  if (threadIdx.x == 0) shared.above = above;
  cluster_sync();
}

/// The key of this thread's place in the sorted lists of all blocks together, kNoKey beyond its end; n is -1
/// when they are too long.
struct Listed {
  int n;
  uint64_t key;
};
__device__ Listed merge_lists(Shared& shared) {
  const uint32_t listed = of_lane(shared.listed, 0u);
  const uint32_t total = __reduce_add_sync(~0u, listed);
  if (total > kListSize) return {-1, kNoKey};
  uint64_t key = kNoKey;
  uint32_t at = 0;
  for (uint32_t rank = 0; rank < cluster_size(); ++rank) {
    const uint32_t n = __shfl_sync(~0u, listed, static_cast<int>(rank));
    if (threadIdx.x >= at && threadIdx.x < at + n) key = of_block(shared.list[threadIdx.x - at], rank);
    at += n;
  }
  return {static_cast<int>(total), sorted(key, static_cast<int>(total), shared.exchanged)};
}

/// In the list: the token with which the sum, that of the bins before included, reaches `wanted`; false when
/// none does, or those bins do already. `weight`: that of this thread's token.
__device__ bool find_in_list(Measure measure, uint64_t wanted, uint64_t above, const Listed& list,
                             uint64_t weight, Last& last, Shared& shared) {
  if (threadIdx.x == 0) shared.found_key = kNoKey;
  const auto scan = block_scan(weight, shared.sums);
  const uint64_t count = shared.count_above + threadIdx.x;
  const uint64_t had = measure == Measure::count ? count : above + scan.before;
  const uint64_t has = measure == Measure::count ? count + 1 : above + scan.with;
  if (list.key != kNoKey && had < wanted && has >= wanted) {
    shared.found_key = list.key;
    shared.found_weight = above + scan.with;
  }
  __syncthreads();
  last = {logit_of(shared.found_key), id_of(shared.found_key), shared.found_weight};
  return shared.found_key != kNoKey;
}

/// The last token by bisection of the keys. Not inlined: it is rare, and long.
__device__ __noinline__ Last bisect(Row row, Measure measure, uint64_t wanted, float least, Shared& shared) {
  const auto ids = static_cast<uint64_t>(row.vocab - 1);
  uint64_t low = best_key(row.largest, 0), high = best_key(least, static_cast<uint32_t>(ids));
  // `slot` alternates, as blocks may still be reading the last sum.
  for (int slot = 0;; slot ^= 1) {
    const bool is_found = low >= high;
    const bool by_count = measure == Measure::count && !is_found;
    const uint64_t middle = low + (high - low) / 2;
    const Last last{logit_of(middle), id_of(middle), 0};
    uint64_t sum = 0;
    row.for_each_chunk([&](int, const float(&logits)[kPerLane], uint32_t id) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        const float exponent = row.exponent(logits[j]);
        const bool counts =
            exponent >= sampling::kFaintest && last.includes(logits[j], id + 32u * static_cast<uint32_t>(j));
        const uint64_t weight = sampling::weight_of(numerics::exp_term(exponent));
        sum += counts ? (by_count ? 1 : weight) : 0;
      }
    });
    sum = block_sum(sum, shared.sums);
    if (threadIdx.x == 0) shared.bisected[slot] = sum;
    cluster_sync();
    sum = cluster_sum(shared.bisected[slot]);
    if (is_found) return {last.logit, last.id, sum};
    if (sum >= wanted) {
      high = middle;
    } else {
      low = middle + 1;
    }
    // What is left are the tokens of one logit.
    if (low >> 32 == high >> 32) high = min(high, (high >> 32 << 32) + ids);
  }
}

/// The weights, chunk by chunk, of the tokens up to the last that pass min-p.
__device__ __noinline__ void sum_chunks(Row row, Last last, uint64_t* chunk_sums) {
  row.for_each_chunk([&](int chunk, const float(&logits)[kPerLane], uint32_t id) {
    uint64_t kept = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float relative = numerics::exp_term(row.exponent(logits[j]));
      const bool is_kept =
          relative >= row.least_relative && last.includes(logits[j], id + 32u * static_cast<uint32_t>(j));
      kept += sampling::weight_of(is_kept ? relative : 0.0f);
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
  const Listed list = merge_lists(shared);
  const float relative = list.key != kNoKey ? numerics::exp_term(row.exponent(logit_of(list.key))) : 0.0f;
  const uint64_t weight = sampling::weight_of(relative);
  Last last{};
  if (list.n < 0 || !find_in_list(measure, wanted, above, list, weight, last, shared)) {
    last = bisect(row, measure, wanted, least, shared);
    sum_chunks(row, last, chunk_sums);
    return last;
  }
  // What the list adds to the block's own chunks.
  const int chunk = static_cast<int>(id_of(list.key) / kChunk);
  if (list.key <= shared.found_key && chunk >= row.first_chunk && chunk < row.end_chunk &&
      relative >= row.least_relative) {
    atomicAdd(reinterpret_cast<unsigned long long*>(chunk_sums + (chunk - row.first_chunk)),
              static_cast<unsigned long long>(weight));
  }
  return last;
}

/// The draw among the tokens up to the last, from the chunks' sums.
__device__ void draw(const Row& row, const Last& last, uint64_t random, const uint64_t* chunk_sums,
                     int32_t* out, Shared& shared) {
  __syncthreads();
  const int chunks = row.end_chunk - row.first_chunk;
  const int each = (chunks + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * each, chunks), end = min(begin + each, chunks);
  uint64_t own = 0;
#pragma unroll 1
  for (int chunk = begin; chunk < end; ++chunk) own += chunk_sums[chunk];
  const Scan<uint64_t> scan = block_scan(own, shared.sums);
  if (threadIdx.x == 0) shared.drawn = scan.total;
  cluster_sync();
  const uint64_t drawn = of_lane(shared.drawn, uint64_t{0});
  const uint64_t total = warp_sum(drawn);
  const uint64_t before = warp_sum(threadIdx.x % 32 < ptx::cluster_rank() ? drawn : 0);
  const uint64_t target = sampling::target_of(random, total);
  if (target < before || target - before >= scan.total) return;
  uint64_t rest = target - before;
  if (scan.before <= rest && rest < scan.with) {
    rest -= scan.before;
    int chunk = begin;
#pragma unroll 1
    while (rest >= chunk_sums[chunk]) rest -= chunk_sums[chunk++];
    shared.chunk = row.first_chunk + chunk;
    shared.rest = rest;
  }
  __syncthreads();
  const int id = shared.chunk * kChunk + static_cast<int>(threadIdx.x);
  uint64_t weight = 0;
  if (threadIdx.x < kChunk && id < row.vocab) {
    const float logit = row.drawable(row.x[id]);
    const float relative = numerics::exp_term(row.exponent(logit));
    if (relative >= row.least_relative && last.includes(logit, static_cast<uint32_t>(id)))
      weight = sampling::weight_of(relative);
  }
  const Scan<uint64_t> within = block_scan(weight, shared.sums);
  if (within.before <= shared.rest && shared.rest < within.with) *out = id;
}

__device__ void sample_one(Row& row, const SampleParams& params, int32_t* out, uint64_t* chunk_sums,
                           Shared& shared) {
  float least;
  if (!find_extremes(row, least, shared)) {
    if (ptx::cluster_rank() == 0 && threadIdx.x == 0) *out = -1;
    return;
  }
  if (sampling::is_greedy(params.temperature)) {
    sample_greedy(row, out, shared);
    return;
  }
  row.inverse_temperature = 1.0f / params.temperature;
  row.least_relative = sampling::least_relative(params.min_p);
  // The bins' ends may be anywhere, as long as their order is the logits'.
  row.bin_scale =
      static_cast<float>(kBins - 1) / fmaxf(-fmaxf(row.exponent(least), sampling::kFaintest), 1e-30f);

  const bool by_count = params.top_k > 0 && params.top_k < row.vocab, by_weight = params.top_p < 1.0f;
  Last last{-INFINITY, ~0u, 0};
  bool is_summed = false;
  if (by_count || by_weight) {
    uint32_t counts[kBinsPerThread];
    const uint64_t total = count_bins(row, counts, shared);
    last.weight = total;
#pragma unroll 1
    for (int filter = by_count ? 0 : 1; filter <= (by_weight ? 1 : 0); ++filter) {
      const Measure measure = filter == 0 ? Measure::count : Measure::weight;
      uint64_t wanted = 0;
      if (measure == Measure::count) {
        wanted = static_cast<uint64_t>(params.top_k);
        if (!find_bin_by_count(static_cast<uint32_t>(params.top_k), counts, shared)) continue;
      } else {
        wanted = sampling::share_of(params.top_p, last.weight);
        find_bins_by_weight(row, static_cast<int64_t>(wanted), static_cast<int64_t>(total), counts, shared);
      }
      // The others may still be reading what the next pass writes.
      if (is_summed) cluster_sync();
      last = select(row, measure, wanted, least, chunk_sums, shared);
      is_summed = true;
    }
  }
  if (!is_summed) sum_chunks(row, last, chunk_sums);
  draw(row, last, params.random, chunk_sums, out, shared);
}

__global__ void __launch_bounds__(kThreads) sample_kernel(const float* logits, int64_t vocab, int64_t stride,
                                                          const SampleParams* params, int32_t* out) {
  extern __shared__ uint64_t chunk_sums[];
  __shared__ Shared shared;
  launch_dependents();
  wait_for_dependencies();
  const uint32_t at = blockIdx.x / cluster_size();
  const uint32_t chunks = static_cast<uint32_t>(vocab + kChunk - 1) / kChunk;
  const uint32_t each = (chunks + cluster_size() - 1) / cluster_size();
  Row row{};
  row.x = logits + at * stride;
  row.vocab = static_cast<int>(vocab);
  row.first_chunk = static_cast<int>(min(ptx::cluster_rank() * each, chunks));
  row.end_chunk = static_cast<int>(min(ptx::cluster_rank() * each + each, chunks));
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
  // Blocks for all multiprocessors, as long as every warp has a chunk. Of clusters of 4 and 8 no more than
  // what finds room at once wherever multiprocessors are missing.
  const int64_t multiprocessors = sm_count();
  int cluster = 1;
  const auto wants_more = [&] {
    return (op.logits.rows * cluster * 2 <= multiprocessors / (cluster > 1 ? 2 : 1) &&
            op.logits.cols > int64_t{cluster} * kChunk * kWarps) ||
           op.logits.cols > kMaxColumns * cluster;
  };
  while (cluster < 8 && wants_more()) cluster *= 2;
  sample(op, cluster, stream);
}

}  // namespace atom::cuda
