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
  int32_t id;
  uint64_t weight;
};

/// Of equally likely tokens the smaller id goes first, so that the order is total.
bool is_more_likely(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

uint64_t sum_of_weights(const std::vector<Candidate>& candidates) {
  uint64_t sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

void keep_top_k(std::vector<Candidate>& candidates, int32_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  const auto end = candidates.begin() + top_k;
  std::nth_element(candidates.begin(), end, candidates.end(), is_more_likely);
  candidates.erase(end, candidates.end());
}

void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  if (!(top_p < 1.0f)) return;
  const uint64_t wanted = sampling::share_of(top_p, sum_of_weights(candidates));
  // Sorted piece by piece, each eight times as long as all before: the most likely few tokens are usually
  // enough.
  uint64_t sum = 0;
  size_t sorted = 0;
  for (size_t size = 64; sorted < candidates.size(); size *= 8) {
    const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(std::min(size, candidates.size()));
    std::nth_element(begin, end, candidates.end(), is_more_likely);
    std::sort(begin, end, is_more_likely);
    for (auto it = begin; it != end; ++it) {
      sum += it->weight;
      if (sum >= wanted) {
        candidates.erase(it + 1, candidates.end());
        return;
      }
    }
    sorted = static_cast<size_t>(end - candidates.begin());
  }
}

int32_t sample_row(const float* logits, int64_t vocab, const SampleParams& params,
                   std::vector<Candidate>& candidates) {
  int32_t best = -1;
  for (int64_t i = 0; i < vocab; ++i) {
    if (std::isfinite(logits[i]) && (best < 0 || logits[i] > logits[best])) best = static_cast<int32_t>(i);
  }
  if (best < 0 || sampling::is_greedy(params.temperature)) return best;

  const float largest = logits[best];
  const float inverse = 1.0f / params.temperature;
  const float least = sampling::least_relative(params.min_p);
  candidates.clear();
  for (int64_t i = 0; i < vocab; ++i) {
    // Without weight a token can neither be drawn nor count for top-p; and top-k keeps all that have some
    // before it keeps one that has none.
    if (!std::isfinite(logits[i]) || (logits[i] - largest) * inverse < sampling::kFaintest) continue;
    const float relative = sampling::relative_probability(logits[i], largest, inverse);
    candidates.push_back({logits[i], static_cast<int32_t>(i), sampling::weight_of(relative)});
  }
  keep_top_k(candidates, params.top_k);
  keep_top_p(candidates, params.top_p);
  if (params.min_p > 0.0f) {
    std::erase_if(candidates, [&](const Candidate& candidate) {
      return sampling::relative_probability(candidate.logit, largest, inverse) < least;
    });
  }
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(candidates.begin(), candidates.end(), by_id))
    std::sort(candidates.begin(), candidates.end(), by_id);
  const uint64_t target = sampling::target_of(params.random, sum_of_weights(candidates));
  uint64_t sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (sum > target) return candidate.id;
  }
  assert(false);
  return best;
}

}  // namespace

void sample(const DeviceContext& device, const Sample& op) {
  const auto rows = static_cast<size_t>(op.logits.rows);
  assert(op.params.size() == rows && op.out.size() == rows && op.logits.cols <= sampling::kMaxVocabulary);
  for_each_token_range(device, op.logits.rows, op.logits.cols, [&](int64_t begin, int64_t end) {
    std::vector<Candidate> candidates;
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      op.out[row] = sample_row(op.logits.row(t), op.logits.cols, op.params[row], candidates);
    }
  });
}

}  // namespace atom::reference
