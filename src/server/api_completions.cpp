#include <limits>
#include <utility>

#include "server/completion_reply.h"
#include "server/service.h"

namespace atom::server {
namespace {

constexpr std::string_view kPromptForms =
    "a string, a list of strings, a list of token ids, or a list of lists of token ids";

/// The prompts, one an item: "prompt" has four forms.
std::vector<CompletionPrompt> read_prompts(const Service& service, const Json& value, bool add_special_tokens,
                                           int64_t n) {
  const auto of_text = [&](const std::string& text, const std::string& field) {
    return CompletionPrompt{encode_text(service, text, add_special_tokens, field, Length::context), text,
                            true};
  };
  const auto of_tokens = [&](const Json& list, const std::string& field) {
    return CompletionPrompt{read_token_ids(list, field, service.tokenizer.vocab_size()), "", false};
  };
  std::vector<CompletionPrompt> prompts;
  if (value.is_string()) {
    prompts.push_back(of_text(value.get_ref<const std::string&>(), "prompt"));
  } else if (!value.is_array()) {
    refuse_value("prompt", kPromptForms, value);
  } else if (value.empty()) {
    refuse_field("prompt", "expected at least one prompt, found an empty list");
  } else if (value.front().is_number()) {
    prompts.push_back(of_tokens(value, "prompt"));
  } else {
    if (value.size() > static_cast<size_t>(service.options.max_choices)) {
      refuse_field("prompt", fmt::format("expected at most {} prompts, found {}", service.options.max_choices,
                                         value.size()));
    }
    if (static_cast<int64_t>(value.size()) * n > service.options.max_choices) {
      refuse_field("n", fmt::format("expected at most {} choices in all, found {} prompts with n {}",
                                    service.options.max_choices, value.size(), n));
    }
    const bool texts = value.front().is_string();
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string field = fmt::format("prompt[{}]", i);
      const Json& item = value[i];
      if (texts != item.is_string() || texts == item.is_array()) refuse_value("prompt", kPromptForms, value);
      prompts.push_back(texts ? of_text(item.get_ref<const std::string&>(), field) : of_tokens(item, field));
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].tokens.empty()) {
      refuse_field(prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", i),
                   "expected at least one token, found none");
    }
  }
  return prompts;
}

}  // namespace

void complete(Service& service, Call call) {
  Fields fields(call.body);
  check_model(fields, service.options);
  const GenerationFields asked =
      read_generation_fields(fields, service.tokenizer, service.options.max_choices);
  const bool echo = fields.boolean("echo").value_or(false);
  const std::optional<int64_t> logprobs = fields.integer("logprobs", 0, kMaxTopLogprobs);
  const int64_t max_tokens = fields.integer("max_tokens", 0, std::numeric_limits<int32_t>::max())
                                 .value_or(service.options.default_max_tokens);
  if (max_tokens == 0 && !echo) refuse_field("max_tokens", "0 is allowed only where echo is true");
  const std::optional<int64_t> best_of = fields.integer("best_of", 1, std::numeric_limits<int32_t>::max());
  if (best_of && *best_of != asked.n) {
    refuse_field("best_of", fmt::format("only n, which is {}, is supported; found {}", asked.n, *best_of),
                 "unsupported_parameter");
  }
  fields.refuse({"suffix"}, "this server does not fill in text between a prompt and a suffix");
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  const Json& prompt = fields.required("prompt", kPromptForms);
  fields.finish();

  std::vector<CompletionPrompt> prompts = read_prompts(service, prompt, add_special_tokens, asked.n);
  std::vector<Request> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    CompletionPrompt& item = prompts[i];
    const std::string field = prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", i);
    Request request = make_request(service, asked, item.tokens, max_tokens, field);
    if (logprobs) request.logprobs = static_cast<int>(*logprobs);
    if (logprobs && echo) request.prompt_logprobs = request.logprobs;
    requests.push_back(std::move(request));
    if (echo && !item.written) item.text = service.tokenizer.decode(item.tokens, asked.skip_special_tokens);
  }
  CompletionReplyOptions options{.echo = echo, .token_ids = asked.return_token_ids};
  if (logprobs) options.logprobs = static_cast<int>(*logprobs);
  generate(service, std::move(call), asked, std::move(requests),
           std::make_unique<CompletionReply>(service.tokenizer, std::move(prompts), options));
}

}  // namespace atom::server
