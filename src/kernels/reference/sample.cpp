#include "kernels/reference/sample.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/fused_tokens.h"

namespace atom::reference {
namespace {

struct Candidate {
  float logit;
  float relative;
  int32_t id;

  uint64_t weight() const { return sampling::weight_of(relative); }
};

/// Of equally likely tokens the smaller id goes first, so that the order is total.
bool is_more_likely(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

template <class Iterator>
uint64_t sum_of_weights(Iterator begin, Iterator end) {
  uint64_t sum = 0;
  for (; begin != end; ++begin) sum += begin->weight();
  return sum;
}

/// Leaves the first `top_k` of the order, the last of them at the back.
void keep_top_k(std::vector<Candidate>& candidates, int32_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  const auto end = candidates.begin() + top_k;
  std::nth_element(candidates.begin(), end - 1, candidates.end(), is_more_likely);
  candidates.erase(end, candidates.end());
}

/// Leaves the shortest beginning of the order with enough weight, the last token of it at the back.
void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  const uint64_t total = sum_of_weights(candidates.begin(), candidates.end());
  const uint64_t wanted = sampling::share_of(top_p, total);
  // What all together would not fill the rest is part of it; but for the last bits, weights have the order of
  // the logits.
  const uint64_t least = (total - wanted) / candidates.size();
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight() + c.weight() / 64 < least; });
  // That token lies in [begin, end); `sum` is the weight of those before.
  auto begin = candidates.begin(), end = candidates.end();
  uint64_t sum = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, is_more_likely);
    const uint64_t half = sum_of_weights(begin, middle);
    if (sum + half >= wanted) {
      end = middle;
    } else {
      sum += half;
      begin = middle;
    }
  }
  candidates.erase(begin + 1, candidates.end());
}

struct Scratch {
  std::vector<float> relative;
  std::vector<Candidate> by_id, by_likelihood;
};

void scalar_relative_probabilities(const float* logits, int64_t n, float largest, float inverse_temperature,
                                   float* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = sampling::relative_probability(logits[i], largest, inverse_temperature);
}

int32_t sample_row(const float* logits, int64_t vocab, const SampleParams& params,
                   RelativeProbabilities relative_probabilities, Scratch& scratch) {
  int32_t best = -1;
  for (int64_t i = 0; i < vocab; ++i) {
    if (std::isfinite(logits[i]) && (best < 0 || logits[i] > logits[best])) best = static_cast<int32_t>(i);
  }
  if (best < 0 || sampling::is_greedy(params.temperature)) return best;

  const float largest = logits[best];
  const float inverse = 1.0f / params.temperature;
  const float least = sampling::least_relative(params.min_p);
  scratch.relative.resize(static_cast<size_t>(vocab));
  relative_probabilities(logits, vocab, largest, inverse, scratch.relative.data());
  std::vector<Candidate>& candidates = scratch.by_id;
  candidates.clear();
  for (int64_t i = 0; i < vocab; ++i) {
    // All tokens that have a weight come before these, which can neither be drawn nor count for top-p.
    if (!std::isfinite(logits[i]) || (logits[i] - largest) * inverse < sampling::kFaintest) continue;
    candidates.push_back({logits[i], scratch.relative[static_cast<size_t>(i)], static_cast<int32_t>(i)});
  }
  if (params.top_k > 0 || params.top_p < 1.0f) {
    std::vector<Candidate>& order = scratch.by_likelihood;
    order = candidates;
    keep_top_k(order, params.top_k);
    if (params.top_p < 1.0f) keep_top_p(order, params.top_p);
    if (order.size() < candidates.size()) {
      const Candidate last = order.back();
      std::erase_if(candidates, [&](const Candidate& c) { return is_more_likely(last, c); });
    }
  }
  std::erase_if(candidates, [&](const Candidate& c) { return c.relative < least; });
  const uint64_t target =
      sampling::target_of(params.random, sum_of_weights(candidates.begin(), candidates.end()));
  uint64_t sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight();
    if (sum > target) return candidate.id;
  }
  assert(false);
  return best;
}

}  // namespace

void sample(const DeviceContext& device, const Sample& op) {
  sample(device, op, scalar_relative_probabilities);
}

void sample(const DeviceContext& device, const Sample& op, RelativeProbabilities relative_probabilities) {
  assert(op.params.size() == static_cast<size_t>(op.logits.rows) && op.out.size() == op.params.size());
  assert(op.logits.cols <= sampling::kMaxVocabulary);
  for_each_token_range(device, op.logits.rows, op.logits.cols, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      op.out[row] =
          sample_row(op.logits.row(t), op.logits.cols, op.params[row], relative_probabilities, scratch);
    }
  });
}

}  // namespace atom::reference
