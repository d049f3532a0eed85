#include "engine/sampler.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "base/random.h"
#include "kernels/ops.h"

namespace atom {
namespace {

void require_range(bool condition, const char* name, const char* expected, double found) {
  if (!condition) throw UsageError(fmt::format("{}: expected {}, found {}", name, expected, found));
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

Sampler::Sampler(const SamplingParams& params) : params_(params) {
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

void Sampler::penalize(std::span<float> logits) const {
  for (const int32_t token : seen_list_) {
    assert(static_cast<size_t>(token) < logits.size());
    float& logit = logits[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  }
}

SampleParams Sampler::next() const {
  return {.temperature = params_.temperature,
          .top_p = params_.top_p,
          .min_p = params_.min_p,
          .top_k = static_cast<int32_t>(std::min<int64_t>(params_.top_k, INT32_MAX)),
          .random = random_word(params_.seed, accepted_)};
}

void Sampler::accept(int32_t token) {
  require(token >= 0, "no token can be chosen: none of the logits is finite");
  ++accepted_;
  observe(token);
}

int32_t Sampler::sample(std::span<float> logits) {
  if (penalizes()) penalize(logits);
  const auto vocab = static_cast<int64_t>(logits.size());
  const SampleParams params = next();
  int32_t token = -1;
  run(DeviceContext{.isa = detect_cpu_isa()}, Sample{{logits.data(), 1, vocab}, {&params, 1}, {&token, 1}});
  accept(token);
  return token;
}

}  // namespace atom
