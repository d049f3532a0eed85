#include "server/generation_fields.h"

#include <charconv>
#include <limits>
#include <random>
#include <unordered_set>

namespace atom::server {
namespace {

std::vector<std::string> read_stop(Fields& fields) {
  const Json* value = fields.find("stop");
  if (!value) return {};
  const std::string path = fields.path_of("stop");
  const auto checked = [](const Json& item, const std::string& where) {
    if (!item.is_string()) refuse_value(where, "a string", item);
    const auto& text = item.get_ref<const std::string&>();
    if (text.empty()) refuse_field(where, "expected a string that is not empty");
    if (text.size() > kMaxStopBytes) {
      refuse_field(where, fmt::format("expected at most {} bytes, found {}", kMaxStopBytes, text.size()));
    }
    return text;
  };
  if (!value->is_array()) {
    if (!value->is_string()) refuse_value(path, "a string or a list of strings", *value);
    return {checked(*value, path)};
  }
  if (value->size() > kMaxStops) {
    refuse_field(path, fmt::format("expected at most {} strings, found {}", kMaxStops, value->size()));
  }
  std::vector<std::string> stops;
  for (size_t i = 0; i < value->size(); ++i) {
    stops.push_back(checked((*value)[i], fmt::format("{}[{}]", path, i)));
  }
  return stops;
}

int32_t read_token_key(const std::string& key, const std::string& path, int32_t vocab) {
  int32_t token = -1;
  const char* end = key.data() + key.size();
  const auto [parsed, error] = std::from_chars(key.data(), end, token);
  if (error != std::errc() || parsed != end || token < 0 || token >= vocab) {
    refuse_field(path,
                 fmt::format("expected token ids below {} as keys, found \"{}\"", vocab, printable(key, 40)));
  }
  return token;
}

std::vector<std::pair<int32_t, float>> read_logit_bias(Fields& fields, int32_t vocab) {
  const Json* value = fields.find("logit_bias");
  if (!value) return {};
  const std::string path = fields.path_of("logit_bias");
  if (!value->is_object()) refuse_value(path, "an object of token ids and numbers", *value);
  if (value->size() > kMaxLogitBias) {
    refuse_field(path, fmt::format("expected at most {} tokens, found {}", kMaxLogitBias, value->size()));
  }
  std::vector<std::pair<int32_t, float>> biases;
  std::unordered_set<int32_t> seen;
  for (const auto& [key, bias] : value->items()) {
    const int32_t token = read_token_key(key, path, vocab);
    // "7" and "07" are two keys and one token.
    if (!seen.insert(token).second) refuse_field(path, fmt::format("token {} appears twice", token));
    if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100)) {
      refuse_value(fmt::format("{}.{}", path, token), "a number from -100 to 100", bias);
    }
    biases.emplace_back(token, bias.get<float>());
  }
  return biases;
}

std::vector<int32_t> read_stop_ids(Fields& fields, int32_t vocab) {
  const Json* value = fields.find("stop_token_ids");
  if (!value) return {};
  const std::string path = fields.path_of("stop_token_ids");
  if (value->is_array() && value->size() > kMaxStopIds) {
    refuse_field(path, fmt::format("expected at most {} tokens, found {}", kMaxStopIds, value->size()));
  }
  return read_token_ids(*value, path, vocab);
}

/// A stream of its own for every request that names no seed.
uint64_t fresh_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

SamplingParams read_sampling(Fields& fields, int32_t vocab) {
  SamplingParams sampling;
  const auto number = [&](const char* name, double missing, double min, double max) {
    return static_cast<float>(fields.number(name, min, max).value_or(missing));
  };
  sampling.temperature = number("temperature", 1, 0, 100);
  sampling.top_p = number("top_p", 1, 0, 1);
  sampling.min_p = number("min_p", 0, 0, 1);
  sampling.repetition_penalty = number("repetition_penalty", 1, 0, 100);
  sampling.presence_penalty = number("presence_penalty", 0, -2, 2);
  sampling.frequency_penalty = number("frequency_penalty", 0, -2, 2);
  // -1 is another way to say all, as in vLLM.
  sampling.top_k =
      std::max<int64_t>(fields.integer("top_k", -1, std::numeric_limits<int32_t>::max()).value_or(0), 0);
  sampling.logit_bias = read_logit_bias(fields, vocab);
  const auto seed =
      fields.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : fresh_seed();
  try {
    sampling.validate();
  } catch (const UsageError& error) {
    // "temperature: expected ..."
    const std::string text = error.what();
    throw RequestError(400, text, text.substr(0, text.find(':')));
  }
  return sampling;
}

void read_stream(Fields& fields, GenerationFields& out) {
  out.stream = fields.boolean("stream").value_or(false);
  const Json* options = fields.find("stream_options");
  if (!options) return;
  Fields inner(*options, fields.path_of("stream_options"));
  out.include_usage = inner.boolean("include_usage").value_or(false);
  inner.ignore({"include_obfuscation"});
  inner.finish();
  if (!out.stream) refuse_field(fields.path_of("stream_options"), "is allowed only where stream is true");
}

/// Fields of OpenAI that ask for nothing that changes the answer, in the values that do not.
void pass_over(Fields& fields) {
  fields.string("user");
  fields.string("safety_identifier");
  fields.string("prompt_cache_key");
  fields.string("prompt_cache_retention");
  if (const Json* metadata = fields.find("metadata"); metadata && !metadata->is_object()) {
    refuse_value("metadata", "an object", *metadata);
  }
  if (fields.boolean("store").value_or(false)) {
    refuse_field("store", "this server keeps no answers; only false is supported", "unsupported_parameter");
  }
  const auto tier = fields.string("service_tier");
  if (tier && *tier != "auto" && *tier != "default") {
    refuse_field("service_tier",
                 fmt::format("expected \"auto\" or \"default\", found \"{}\"", printable(*tier, 40)),
                 "unsupported_parameter");
  }
}

}  // namespace

GenerationFields read_generation_fields(Fields& fields, const text::Tokenizer& tokenizer, int64_t max_n) {
  GenerationFields out;
  out.sampling = read_sampling(fields, tokenizer.vocab_size());
  out.n = static_cast<int>(fields.integer("n", 1, max_n).value_or(1));
  out.stop = read_stop(fields);
  out.stop_ids = read_stop_ids(fields, tokenizer.vocab_size());
  out.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  out.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  out.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  read_stream(fields, out);
  pass_over(fields);
  return out;
}

}  // namespace atom::server
