#include "engine/sampler.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.h"

namespace atom {
namespace {

void require_range(bool condition, const char* name, const char* expected, double found) {
  if (!condition) throw UsageError(fmt::format("{}: expected {}, found {}", name, expected, found));
}

/// Of equally likely tokens the smaller id goes first, so that the order is total.
constexpr auto kMoreLikely = [](const auto& a, const auto& b) {
  return a.relative > b.relative || (a.relative == b.relative && a.id < b.id);
};

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

void SamplingParams::validate() const {
  // Smaller temperatures would overflow float; they are greedy for every purpose.
  require_range(temperature == 0.0f || (temperature >= 1e-3f && temperature <= 100.0f), "temperature",
                "0 (greedy) or 0.001 to 100", temperature);
  require_range(top_k >= 0, "top_k", "a number of at least 0", static_cast<double>(top_k));
  require_range(top_p > 0.0f && top_p <= 1.0f, "top_p", "more than 0 and at most 1", top_p);
  require_range(min_p >= 0.0f && min_p <= 1.0f, "min_p", "0 to 1", min_p);
  require_range(repetition_penalty >= 0.01f && repetition_penalty <= 100.0f, "repetition_penalty",
                "0.01 to 100", repetition_penalty);
}

Sampler::Sampler(const SamplingParams& params) : params_(params), random_(params.seed) {
  params.validate();
}

void Sampler::observe(int32_t token) {
  assert(token >= 0);
  const auto index = static_cast<size_t>(token);
  if (index >= seen_.size()) seen_.resize(index + 1);
  if (seen_[index]) return;
  seen_[index] = true;
  seen_list_.push_back(token);
}

int32_t Sampler::sample(std::span<float> logits) {
  assert(!logits.empty());
  for (float& logit : logits) {
    if (!(logit < INFINITY)) logit = -INFINITY;
  }
  if (params_.repetition_penalty != 1.0f) {
    for (const int32_t token : seen_list_) {
      assert(static_cast<size_t>(token) < logits.size());
      float& logit = logits[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    }
  }
  const int32_t best = argmax(logits);
  const float largest = logits[static_cast<size_t>(best)];
  require(largest > -INFINITY, "no token can be chosen: none of the {} logits is finite", logits.size());

  int32_t token = best;
  if (params_.temperature > 0.0f) {
    const bool filtered = params_.top_k > 0 || params_.top_p < 1.0f || params_.min_p > 0.0f;
    for (float& logit : logits) logit = (logit - largest) / params_.temperature;
    token = filtered ? draw_filtered(logits) : draw_from_all(logits);
  }
  observe(token);
  return token;
}

int32_t Sampler::draw_from_all(std::span<const float> relative) {
  weights_.resize(relative.size());
  for (size_t i = 0; i < relative.size(); ++i) weights_[i] = std::exp(relative[i]);
  return static_cast<int32_t>(draw());
}

int32_t Sampler::draw_filtered(std::span<const float> relative) {
  candidates_.clear();
  for (size_t i = 0; i < relative.size(); ++i) {
    if (relative[i] > -INFINITY) candidates_.push_back({relative[i], static_cast<int32_t>(i)});
  }
  if (params_.top_k > 0 && params_.top_k < static_cast<int64_t>(candidates_.size())) keep_top_k();
  if (params_.top_p < 1.0f) keep_top_p();
  if (params_.min_p > 0.0f) {
    const float least = std::log(params_.min_p);
    std::erase_if(candidates_, [least](const Candidate& candidate) { return candidate.relative < least; });
  }
  weights_.clear();
  for (const Candidate& candidate : candidates_) weights_.push_back(std::exp(candidate.relative));
  return candidates_[draw()].id;
}

void Sampler::keep_top_k() {
  const auto end = candidates_.begin() + params_.top_k;
  std::nth_element(candidates_.begin(), end, candidates_.end(), kMoreLikely);
  candidates_.erase(end, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(), kMoreLikely);
}

void Sampler::keep_top_p() {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += std::exp(candidate.relative);
  const double wanted = static_cast<double>(params_.top_p) * total;
  // Sorted piece by piece, each eight times as long as all before: the most likely few tokens are usually
  // enough.
  double sum = 0.0;
  size_t sorted = 0;
  for (size_t size = 64; sorted < candidates_.size(); size *= 8) {
    const auto begin = candidates_.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(std::min(size, candidates_.size()));
    std::nth_element(begin, end, candidates_.end(), kMoreLikely);
    std::sort(begin, end, kMoreLikely);
    for (auto it = begin; it != end; ++it) {
      sum += std::exp(it->relative);
      if (sum >= wanted) {
        candidates_.erase(it + 1, candidates_.end());
        return;
      }
    }
    sorted = static_cast<size_t>(end - candidates_.begin());
  }
}

size_t Sampler::draw() {
  double total = 0.0;
  for (const double weight : weights_) total += weight;
  const double target = random_.uniform() * total;
  double sum = 0.0;
  size_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] <= 0.0) continue;
    sum += weights_[i];
    last = i;
    if (sum > target) break;
  }
  // Rounding may leave the sum a little short of the target: the last one that is possible at all.
  return last;
}

}  // namespace atom
