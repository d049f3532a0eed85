#include "generation_options.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "engine/stop_tokens.h"

namespace atom::cli {
namespace {

/// "TOKEN:BIAS".
std::pair<int32_t, float> parse_logit_bias(const std::string& text) {
  std::pair<int32_t, float> parsed;
  const char* end = text.data() + text.size();
  const auto [colon, token_error] = std::from_chars(text.data(), end, parsed.first);
  if (token_error == std::errc() && colon != end && *colon == ':') {
    const auto [stop, bias_error] = std::from_chars(colon + 1, end, parsed.second);
    if (bias_error == std::errc() && stop == end) return parsed;
  }
  throw UsageError(
      fmt::format("--logit-bias: expected a token id, ':' and a number, found '{}'", printable(text)));
}

}  // namespace

void GenerationOptions::add_to(CLI::App& command) {
  command.add_option("--max-tokens", max_tokens, "Tokens to generate at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->capture_default_str();
  command
      .add_option(
          "--temperature", sampling.temperature,
          "0: always the most likely token, so that the answer is reproducible; above: draw, the higher the "
          "wilder")
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Draw among the K most likely tokens only (0: all)")
      ->check(at_least(0))
      ->check(kWholeNumber)
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p,
                  "Draw among the fewest tokens whose probabilities add up to this (1: all); behind --top-k")
      ->capture_default_str();
  command
      .add_option(
          "--min-p", sampling.min_p,
          "Draw among tokens at least this likely, as a share of the most likely one's probability (0: all); "
          "behind --top-p")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Divide the logits of tokens that occurred already by this, multiply where negative (1: "
                  "off); before everything else")
      ->capture_default_str();
  command
      .add_option("--presence-penalty", sampling.presence_penalty,
                  "Take this off the logits of tokens that occurred in the answer, -2 to 2")
      ->capture_default_str();
  command
      .add_option("--frequency-penalty", sampling.frequency_penalty,
                  "Take this off them once for every time that they occurred, -2 to 2")
      ->capture_default_str();
  command
      .add_option_function<std::vector<std::string>>(
          "--logit-bias",
          [this](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) sampling.logit_bias.push_back(parse_logit_bias(text));
          },
          "Add BIAS, -100 to 100, to the logit of TOKEN, an id (atom tokenize prints them); may be given "
          "several times")
      ->type_name("TOKEN:BIAS")
      ->allow_extra_args(false);
  command.add_option("--seed", sampling.seed, "Seed of the draws; the same seed, the same answer")
      ->check(kWholeNumber)
      ->capture_default_str();
  command.add_option("--stop", stop, "End before this text; may be given several times")
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", ignore_eos, "Go on when the model says that it is done");
  command
      .add_option("--context", context,
                  "Tokens of prompt and answer together, which the KV cache has room for (default: as "
                  "needed, up to the "
                  "model's limit)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 31));
  add_kv_cache_option(command, kv_format);
}

void GenerationOptions::validate() const {
  sampling.validate();
  for (const std::string& text : stop) {
    if (text.empty()) throw UsageError("--stop: the text is empty");
  }
}

int64_t GenerationOptions::context_for(const Model& model, int64_t wanted) const {
  const int64_t limit = model.config().max_positions;
  if (!context) return std::min(wanted, limit);
  require(*context <= limit, "--context: expected at most {} tokens (the model's limit), found {}", limit,
          *context);
  return *context;
}

GenerationRequest GenerationOptions::request(const Checkpoint& checkpoint,
                                             const text::Tokenizer& tokenizer) const {
  GenerationRequest request;
  request.max_tokens = max_tokens;
  request.sampling = sampling;
  request.stop = stop;
  if (!ignore_eos) request.stop_ids = end_of_text_ids(checkpoint, tokenizer);
  return request;
}

void add_statistics(Json& json, const GenerationResult& result) {
  json["finish_reason"] = name_of(result.finish_reason);
  json["prompt_tokens"] = result.prompt_tokens;
  json["cached_tokens"] = result.cached_tokens;
  json["completion_tokens"] = result.completion_tokens;
  json["prefill_tokens_per_second"] = result.prefill_tokens_per_second();
  json["decode_tokens_per_second"] = result.decode_tokens_per_second();
}

std::string statistics_line(const GenerationResult& result) {
  return fmt::format(
      "{} prompt tokens ({} cached) at {:.1f} tokens/s, {} completion tokens at {:.1f} tokens/s, {}",
      result.prompt_tokens, result.cached_tokens, result.prefill_tokens_per_second(),
      result.completion_tokens, result.decode_tokens_per_second(), name_of(result.finish_reason));
}

}  // namespace atom::cli
