#include "engine/sequence.h"

#include <algorithm>

namespace atom {
namespace {

SamplingParams with_seed_of(SamplingParams params, int choice) {
  params.seed += static_cast<uint64_t>(choice);
  return params;
}

}  // namespace

Sequence::Sequence(ActiveRequest& owner, int index, PagedKvCache& cache, const text::Tokenizer& tokenizer)
    : request(&owner),
      choice(index),
      tokens(owner.request.prompt),
      table(cache),
      sampler(with_seed_of(owner.request.sampling, index)),
      detokenizer(tokenizer, owner.request.skip_special_tokens),
      stops(owner.request.stop),
      limit_(owner.limit) {
  for (const int32_t token : tokens) sampler.observe(token);
}

ActiveRequest::ActiveRequest(uint64_t number, Request asked, int64_t context,
                             std::shared_ptr<RequestListener> to, PagedKvCache& cache,
                             const text::Tokenizer& tokenizer)
    : id(number), request(std::move(asked)), listener(std::move(to)) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  limit = prompt + std::min(request.max_tokens.value_or(context), context - prompt);
  for (int i = 0; i < request.n; ++i) {
    choices.push_back(std::make_unique<Sequence>(*this, i, cache, tokenizer));
  }
}

bool ActiveRequest::wants_prompt_logprobs() const {
  return request.prompt_logprobs && !prompt_computed && prompt_logprobs.size() + 1 < request.prompt.size();
}

}  // namespace atom
