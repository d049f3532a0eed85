#include "engine/generator.h"

#include <algorithm>
#include <cassert>
#include <chrono>

#include "base/error.h"
#include "text/detokenizer.h"

namespace atom {
namespace {

constexpr int64_t kBlockSize = 16;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rate(int64_t count, double seconds) {
  return count > 0 && seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

/// The text of one answer as it grows: tokens to characters, stop strings, the caller's function.
class Answer {
 public:
  Answer(const text::Tokenizer& tokenizer, const GenerationRequest& request, const Generator::OnText& on_text,
         GenerationResult& result)
      : detokenizer_(tokenizer, true), stops_(request.stop), on_text_(on_text), result_(result) {}

  /// False when the generation is over; result_.finish_reason then says why.
  bool push(int32_t token) { return show(stops_.push(detokenizer_.push(token))); }

  void finish() {
    if (result_.finish_reason == FinishReason::cancelled || stops_.matched()) return;
    if (show(stops_.push(detokenizer_.finish()))) show(stops_.finish());
  }

 private:
  bool show(const std::string& text) {
    result_.text += text;
    if (on_text_ && !on_text_(text)) {
      result_.finish_reason = FinishReason::cancelled;
      return false;
    }
    if (stops_.matched()) {
      result_.finish_reason = FinishReason::stop;
      return false;
    }
    return true;
  }

  text::Detokenizer detokenizer_;
  text::StopMatcher stops_;
  const Generator::OnText& on_text_;
  GenerationResult& result_;
};

}  // namespace

double GenerationResult::prefill_tokens_per_second() const {
  return rate(prompt_tokens - cached_tokens, prefill_seconds);
}

double GenerationResult::decode_tokens_per_second() const {
  return rate(decode_steps, decode_seconds);
}

Generator::Generator(const Model& model, const text::Tokenizer& tokenizer, int64_t context,
                     KvFormat kv_format, int64_t prefill_chunk)
    : model_(&model),
      tokenizer_(&tokenizer),
      context_(context),
      prefill_chunk_(prefill_chunk),
      cache_(model.kv_shape(), kv_format, (context + kBlockSize - 1) / kBlockSize, kBlockSize,
             model.device().memory),
      table_(cache_),
      runner_(model, cache_) {
  assert(context >= 1 && context <= model.config().max_positions && prefill_chunk >= 1);
  cached_.reserve(static_cast<size_t>(context));
}

GenerationResult Generator::generate(const GenerationRequest& request, const OnText& on_text) {
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  require(prompt_tokens > 0, "the prompt is empty");
  require(prompt_tokens < context_,
          "the prompt has {} tokens, which leaves no room for an answer in a context of {}", prompt_tokens,
          context_);
  GenerationResult result;
  result.prompt_tokens = prompt_tokens;
  request.sampling.validate(model_->config().vocab);
  Sampler sampler(request.sampling);
  const int64_t room = context_ - prompt_tokens;
  const int64_t limit = std::min(request.max_tokens.value_or(room), room);
  if (limit <= 0) return result;
  for (const int32_t token : request.prompt) {
    require(token >= 0 && token < model_->config().vocab, "token id {} is outside of the vocabulary of {}",
            token, model_->config().vocab);
    sampler.observe(token);
  }

  const auto prefill_start = Clock::now();
  const MatrixView<const float> hidden = prefill(request.prompt, on_text, result);
  if (hidden.rows == 0) return result;
  int32_t token = choose(hidden, sampler);
  result.prefill_seconds = seconds_since(prefill_start);
  Answer answer(*tokenizer_, request, on_text, result);
  const auto start = Clock::now();
  while (true) {
    result.tokens.push_back(token);
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    if (!answer.push(token) || static_cast<int64_t>(result.tokens.size()) == limit) break;
    token = choose(step({&token, 1}), sampler);
    ++result.decode_steps;
  }
  result.decode_seconds = seconds_since(start);
  answer.finish();
  result.completion_tokens = static_cast<int64_t>(result.tokens.size());
  return result;
}

MatrixView<const float> Generator::prefill(std::span<const int32_t> prompt, const OnText& on_text,
                                           GenerationResult& result) {
  result.cached_tokens = keep_common_prefix(prompt);
  MatrixView<const float> hidden;
  auto begin = static_cast<size_t>(result.cached_tokens);
  while (begin < prompt.size()) {
    // An empty piece of text: only a question whether to go on.
    if (on_text && !on_text({})) {
      result.finish_reason = FinishReason::cancelled;
      return {};
    }
    const size_t count = std::min(static_cast<size_t>(prefill_chunk_), prompt.size() - begin);
    hidden = step(prompt.subspan(begin, count));
    begin += count;
  }
  return hidden;
}

MatrixView<const float> Generator::step(std::span<const int32_t> tokens) {
  const Chunk chunk{&table_, tokens};
  const MatrixView<const float> hidden = runner_.step({&chunk, 1});
  cached_.insert(cached_.end(), tokens.begin(), tokens.end());
  return hidden.row_range(hidden.rows - 1, hidden.rows);
}

int32_t Generator::choose(MatrixView<const float> hidden, Sampler& sampler) {
  RowQuery query;
  query.draw = true;
  query.params = sampler.next();
  query.changes = sampler.changes();
  query.mask = sampler.mask();
  RowAnswer answer;
  runner_.evaluate(hidden, {&query, 1}, {&answer, 1});
  sampler.accept(answer.token);
  return answer.token;
}

int64_t Generator::keep_common_prefix(std::span<const int32_t> prompt) {
  // The last token is computed in any case: its logits are needed.
  const size_t most = std::min(cached_.size(), prompt.size() - 1);
  size_t common = 0;
  while (common < most && cached_[common] == prompt[common]) ++common;
  table_.truncate(static_cast<int64_t>(common));
  cached_.resize(common);
  return static_cast<int64_t>(common);
}

}  // namespace atom
