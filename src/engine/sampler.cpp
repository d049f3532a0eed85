#include "engine/sampler.h"

#include <algorithm>
#include <cassert>
#include <unordered_set>

#include "base/error.h"
#include "base/random.h"

namespace atom {
namespace {

void require_range(bool condition, const char* name, const char* expected, double found) {
  if (!condition) throw UsageError(fmt::format("{}: expected {}, found {}", name, expected, found));
}

}  // namespace

void SamplingParams::validate(std::optional<int64_t> vocab) const {
  // Smaller temperatures would overflow float; they are greedy for every purpose.
  require_range(temperature == 0.0f || (temperature >= 1e-3f && temperature <= 100.0f), "temperature",
                "0 (greedy) or 0.001 to 100", temperature);
  require_range(top_k >= 0, "top_k", "a number of at least 0", static_cast<double>(top_k));
  require_range(top_p > 0.0f && top_p <= 1.0f, "top_p", "more than 0 and at most 1", top_p);
  require_range(min_p >= 0.0f && min_p <= 1.0f, "min_p", "0 to 1", min_p);
  require_range(repetition_penalty >= 0.01f && repetition_penalty <= 100.0f, "repetition_penalty",
                "0.01 to 100", repetition_penalty);
  for (const auto& [name, penalty] :
       {std::pair("presence_penalty", presence_penalty), std::pair("frequency_penalty", frequency_penalty)}) {
    require_range(penalty >= -2.0f && penalty <= 2.0f, name, "-2 to 2", penalty);
  }
  std::unordered_set<int32_t> named;
  for (const auto& [token, bias] : logit_bias) {
    require_range(token >= 0 && token < vocab.value_or(INT64_MAX), "logit_bias", "a token of the vocabulary",
                  token);
    require_range(named.insert(token).second, "logit_bias", "a token once", token);
    require_range(bias >= -100.0f && bias <= 100.0f, "logit_bias", "-100 to 100", bias);
  }
}

Sampler::Sampler(const SamplingParams& params) : params_(params) {
  params.validate();
  for (const auto& [token, bias] : params_.logit_bias) {
    const size_t place = place_of(token);
    seen_[place].bias = changes_[place].bias = bias;
  }
}

size_t Sampler::place_of(int32_t token) {
  const auto [found, is_new] = places_.try_emplace(token, changes_.size());
  if (is_new) {
    changes_.push_back({token, 1.0f, 0.0f});
    seen_.emplace_back();
  }
  return found->second;
}

void Sampler::observe(int32_t token) {
  assert(token >= 0);
  if (params_.repetition_penalty != 1.0f) changes_[place_of(token)].divisor = params_.repetition_penalty;
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
  if (params_.presence_penalty == 0.0f && params_.frequency_penalty == 0.0f) return;
  const size_t place = place_of(token);
  Seen& seen = seen_[place];
  ++seen.count;
  // From the count every time: no rounding adds up.
  changes_[place].bias =
      seen.bias - params_.frequency_penalty * static_cast<float>(seen.count) - params_.presence_penalty;
}

}  // namespace atom
