// Sampling from logits [rows, vocab] f32, a block a row; fused.h says what is chosen. Nothing is sorted: the
// order is by weight w in (0, 1], then by id, and a place in it (the end of top-k, the end of top-p, the
// draw) is found by radix descent over the bits of w: a histogram of the upper bits, the bin in which the
// place lies, then the histogram of the next 10 bits of that bin's weights, and so on; at last the place
// among equal weights, by id. A bin of the first histogram has one exponent, so the sum of its weights is
// exact: count, and the sums of the mantissas' parts, all integers added by atomics whose order does not
// matter. Sums of bins are double, in a fixed order. Nine passes over a row at most.

#include "kernels/cuda/fused/block.cuh"
#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

static_assert(kRowThreads == 1024);  // A thread owns a bin.
constexpr int kBins = 1024;

struct Histogram {
  uint32_t count[kBins];
  /// Sums of bits [10, 20) and [0, 10) of the weights.
  uint32_t middle[kBins];
  uint32_t low[kBins];
};

struct Shared {
  Histogram first;
  Histogram next;
  double weight_until[kBins];
  double count_until[kBins];
  double doubles[kRowWarps];
  uint64_t keys[kRowWarps];
  int ints[kRowWarps];
  uint32_t matches[kRowWarps];
  int token;
};

/// A place in the order: the `ties`-th (from 1) of the weights equal to `bits`.
struct Place {
  uint32_t bits = 0;
  double ties = 0;
  /// Sum of the weights up to this place, itself included.
  double weight = 0;
};

__device__ bool is_before(const Place& a, const Place& b) {
  return a.bits > b.bits || (a.bits == b.bits && a.ties < b.ties);
}

/// Significand of a weight with these bits as an integer, and what it is multiplied by.
__device__ double significand(uint32_t bits) {
  return static_cast<double>((bits & 0x7FFFFFu) | 0x800000u);
}
__device__ double unit(uint32_t bits) {
  return __longlong_as_double(static_cast<long long>(static_cast<int>(bits >> 23) - 150 + 1023) << 52);
}

__device__ void clear(Histogram& h) {
  h.count[threadIdx.x] = h.middle[threadIdx.x] = h.low[threadIdx.x] = 0;
}

enum class Measure { count, weight };

/// The first place at which the measure of all places up to it reaches `target` (`exceed`: is larger), or the
/// last.
__device__ Place find(const float* w, int64_t vocab, Measure measure, double target, bool exceed, Shared& s) {
  Place place;
  double weight_before = 0, count_before = 0;
  const auto reached = [&](double x) { return exceed ? x > target : x >= target; };
#pragma unroll 1
  for (int level = 0; level < 3; ++level) {
    const int shift = 20 - 10 * level;
    if (level > 0) {
      __syncthreads();
      clear(s.next);
      __syncthreads();
      const uint32_t prefix = place.bits >> (shift + 10);
#pragma unroll 8
      for (int64_t i = threadIdx.x; i < vocab; i += kRowThreads) {
        const uint32_t bits = __float_as_uint(w[i]);
        if (bits >> (shift + 10) != prefix) continue;
        const uint32_t bin = bits >> shift & 1023u;
        atomicAdd(&s.next.count[bin], 1u);
        if (level == 1) atomicAdd(&s.next.low[bin], bits & 1023u);
      }
    }
    __syncthreads();
    const Histogram& h = level == 0 ? s.first : s.next;
    // Thread t owns the t-th bin from the top.
    const uint32_t bin = kBins - 1 - threadIdx.x;
    const uint32_t bits = place.bits | bin << shift;
    const auto count = static_cast<double>(h.count[bin]);
    double weight = 0;
    if (h.count[bin] > 0 && bits >> 23 > 0) {
      const double parts = level == 0   ? static_cast<double>(h.middle[bin]) * 1024.0 + h.low[bin]
                           : level == 1 ? static_cast<double>(h.low[bin])
                                        : 0.0;
      weight = (count * significand(bits) + parts) * unit(bits);
    }
    s.weight_until[threadIdx.x] = weight_before + block_scan(weight, s.doubles);
    s.count_until[threadIdx.x] = count_before + block_scan(weight > 0 ? count : 0.0, s.doubles);
    const double until = measure == Measure::count ? s.count_until[threadIdx.x] : s.weight_until[threadIdx.x];
    const int mine = static_cast<int>(threadIdx.x);
    int chosen = block_min(weight > 0 && reached(until) ? mine : kBins, s.ints);
    // Rounding may leave the sum of all short of the target: the last place there is.
    if (chosen == kBins) chosen = -block_min(weight > 0 ? -mine : 0, s.ints);
    if (chosen > 0) {
      weight_before = s.weight_until[chosen - 1];
      count_before = s.count_until[chosen - 1];
    }
    place.bits |= static_cast<uint32_t>(kBins - 1 - chosen) << shift;
    if (level == 2) {
      const double each = __uint_as_float(place.bits);
      const double equal = h.count[kBins - 1 - chosen];
      const double missing =
          measure == Measure::count ? target - count_before : (target - weight_before) / each;
      const double ties = exceed ? floor(missing) + 1.0 : ceil(missing);
      place.ties = fmin(fmax(ties, 1.0), equal);
      place.weight = weight_before + place.ties * each;
    }
  }
  return place;
}

/// Ids are cut into a range a warp; a lane's ids in it are first + lane, first + lane + 32, ...
struct WarpRange {
  int64_t begin;
  int64_t end;
  __device__ explicit WarpRange(int64_t vocab) {
    const int64_t length = (vocab + kRowThreads - 1) / kRowThreads * 32;
    begin = min(threadIdx.x / 32 * length, vocab);
    end = min(begin + length, vocab);
  }
};

/// The id of the ties-th weight equal to place.bits.
__device__ int token_of(const float* w, int64_t vocab, const Place& place, Shared& s) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const WarpRange range(vocab);
  const auto matches = [&](int64_t first) {
    const int64_t i = first + lane;
    return __ballot_sync(~0u, i < range.end && __float_as_uint(w[i]) == place.bits);
  };
  uint32_t found = 0;
  for (int64_t first = range.begin; first < range.end; first += 32) found += __popc(matches(first));
  __syncthreads();
  if (lane == 0) s.matches[warp] = found;
  __syncthreads();
  auto wanted = static_cast<uint32_t>(place.ties);
  for (int i = 0; i < warp; ++i) wanted = s.matches[i] >= wanted ? 0 : wanted - s.matches[i];
  // 0 once an earlier warp holds it.
  if (wanted > 0 && wanted <= found) {
    for (int64_t first = range.begin; first < range.end; first += 32) {
      const uint32_t ballot = matches(first);
      const auto here = static_cast<uint32_t>(__popc(ballot));
      if (here >= wanted) {
        if (lane == 0)
          s.token = static_cast<int>(first) + static_cast<int>(__fns(ballot, 0, static_cast<int>(wanted)));
        break;
      }
      wanted -= here;
    }
  }
  __syncthreads();
  return s.token;
}

/// The first id at which the sum of the weights >= least, by id, exceeds uniform * their sum.
__device__ int draw_by_id(const float* w, int64_t vocab, float least, double uniform, Shared& s) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const WarpRange range(vocab);
  const auto weight = [&](int64_t i) -> double {
    if (i >= range.end) return 0.0;
    const float f = w[i];
    return f >= least ? f : 0.0f;
  };
  double mine = 0;
  for (int64_t i = range.begin + lane; i < range.end; i += 32) mine += weight(i);
  for (int distance = 16; distance > 0; distance /= 2) mine += __shfl_xor_sync(~0u, mine, distance);
  __syncthreads();
  if (lane == 0) s.doubles[warp] = mine;
  __syncthreads();
  double total = 0;
  for (int i = 0; i < kRowWarps; ++i) total += s.doubles[i];
  const double target = uniform * total;
  double before = 0, sum = 0;
  int chosen = 0;
  for (int i = 0; i < kRowWarps; ++i) {
    if (s.doubles[i] <= 0) continue;
    chosen = i;
    before = sum;
    sum += s.doubles[i];
    if (sum > target) break;
  }
  if (warp == chosen) {
    int token = -1;
    for (int64_t first = range.begin; first < range.end; first += 32) {
      const double own = weight(first + lane);
      double until = own;
      for (int distance = 1; distance < 32; distance *= 2) {
        const double left = __shfl_up_sync(~0u, until, distance);
        if (lane >= distance) until += left;
      }
      const uint32_t possible = __ballot_sync(~0u, own > 0);
      const uint32_t reached = __ballot_sync(~0u, own > 0 && before + until > target);
      if (possible != 0) token = static_cast<int>(first) + 31 - __clz(static_cast<int>(possible));
      if (reached != 0) {
        token = static_cast<int>(first) + __ffs(static_cast<int>(reached)) - 1;
        break;
      }
      before += __shfl_sync(~0u, until, 31);
    }
    if (lane == 0) s.token = token;
  }
  __syncthreads();
  return s.token;
}

/// How many weights are >= least, zeros not counted.
__device__ double count_from(const float* w, int64_t vocab, float least, Shared& s) {
  int mine = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < vocab; i += kRowThreads) {
    const float f = w[i];
    mine += f > 0.0f && f >= least ? 1 : 0;
  }
  s.count_until[threadIdx.x] = block_scan(mine, s.doubles);
  __syncthreads();
  return s.count_until[kRowThreads - 1];
}

__global__ void __launch_bounds__(kRowThreads)
    sample_kernel(float* logits, int64_t vocab, int64_t stride, const SamplingRow* rows, int32_t* out) {
  __shared__ Shared s;
  launch_dependents();
  wait_for_dependencies();
  float* w = logits + blockIdx.x * stride;
  const SamplingRow row = rows[blockIdx.x];
  const uint64_t best = best_of_row(w, vocab, s.keys);
  const auto token = static_cast<int32_t>(best & 0xFFFFFFFFu);
  if (best == kNoKey || row.temperature <= 0.0f) {
    if (threadIdx.x == 0) out[blockIdx.x] = best == kNoKey ? -1 : token;
    return;
  }
  const float largest = w[token];
  const bool ordered = row.top_k > 0 || row.top_p < 1.0f;
  clear(s.first);
  __syncthreads();
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < vocab; i += kRowThreads) {
    const float logit = w[i];
    const float weight = logit < INFINITY ? numerics::exp((logit - largest) / row.temperature) : 0.0f;
    w[i] = weight;
    const uint32_t bits = __float_as_uint(weight);
    if (ordered && bits != 0) {
      atomicAdd(&s.first.count[bits >> 20], 1u);
      atomicAdd(&s.first.middle[bits >> 20], bits >> 10 & 1023u);
      atomicAdd(&s.first.low[bits >> 20], bits & 1023u);
    }
  }
  __syncthreads();
  // The most likely token is kept whatever min_p is.
  const float least = fminf(row.min_p, 1.0f);
  int chosen = 0;
  if (!ordered) {
    chosen = draw_by_id(w, vocab, least, row.uniform, s);
  } else {
    Place end =
        find(w, vocab, Measure::count, row.top_k > 0 ? row.top_k : static_cast<double>(vocab), false, s);
    if (row.top_p < 1.0f) {
      const Place cut =
          find(w, vocab, Measure::weight, static_cast<double>(row.top_p) * end.weight, false, s);
      if (is_before(cut, end)) end = cut;
    }
    if (__float_as_uint(least) > end.bits) {
      end = find(w, vocab, Measure::count, count_from(w, vocab, least, s), false, s);
    }
    Place drawn = find(w, vocab, Measure::weight, row.uniform * end.weight, true, s);
    if (is_before(end, drawn)) drawn = end;
    chosen = token_of(w, vocab, drawn, s);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = chosen;
}

}  // namespace

void sample(const SampleArgs& args, cudaStream_t stream) {
  const MutableMatrix& x = args.logits;
  expect(x.dtype == DType::f32 && x.cols > 0 && x.cols <= (1 << 22),
         "sample: logits are f32, at most 4 Mi of them");
  if (x.rows == 0) return;
  launch(sample_kernel, dim3(static_cast<unsigned>(x.rows)), kRowThreads, 0, stream, {},
         static_cast<float*>(x.data), x.cols, x.stride, args.params, args.out);
}

}  // namespace atom::cuda
