#include <limits>
#include <utility>

#include "server/chat_reply.h"
#include "server/service.h"

namespace atom::server {
namespace {

/// What other servers do and this one does not, in the values that ask for nothing accepted.
void refuse_unsupported(Fields& fields) {
  fields.refuse({"tools", "functions", "function_call", "parallel_tool_calls"}, "tools are not supported");
  if (const auto* choice = fields.find("tool_choice"); choice && *choice != "none") {
    refuse_field("tool_choice", "tools are not supported; only \"none\" is accepted",
                 "unsupported_parameter");
  }
  fields.refuse({"audio"}, "audio is not supported");
  if (const Json* modalities = fields.find("modalities");
      modalities && *modalities != Json::array({"text"})) {
    refuse_field("modalities", "only [\"text\"] is supported", "unsupported_parameter");
  }
  fields.refuse({"prediction"}, "predicted output is not supported");
  fields.refuse({"web_search_options"}, "web search is not supported");
  fields.refuse({"reasoning_effort", "verbosity"}, "this server has no such setting");
  if (const Json* format = fields.find("response_format")) {
    Fields inner(*format, "response_format");
    inner.required("type", "\"text\"");
    if (const std::string type = inner.string("type").value(); type != "text") {
      refuse_field("response_format.type",
                   fmt::format("structured output is not supported; expected \"text\", found \"{}\"",
                               printable(type, 40)),
                   "unsupported_parameter");
    }
    inner.finish();
  }
}

std::optional<int64_t> read_max_tokens(Fields& fields) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const auto max_tokens = fields.integer("max_tokens", 1, kMost);
  const auto max_completion_tokens = fields.integer("max_completion_tokens", 1, kMost);
  if (max_tokens && max_completion_tokens && *max_tokens != *max_completion_tokens) {
    refuse_field("max_tokens", "contradicts max_completion_tokens, its newer name; give one of them");
  }
  return max_completion_tokens ? max_completion_tokens : max_tokens;
}

}  // namespace

void chat(Service& service, Call call) {
  Fields fields(call.body);
  check_model(fields, service.options);
  const GenerationFields asked =
      read_generation_fields(fields, service.tokenizer, service.options.max_choices);
  const std::optional<int64_t> max_tokens = read_max_tokens(fields);
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const std::optional<int64_t> top_logprobs = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top_logprobs && !logprobs) refuse_field("top_logprobs", "is allowed only where logprobs is true");
  refuse_unsupported(fields);
  fields.required("messages", "a list of messages");
  fields.finish();

  std::vector<int32_t> prompt = encode_chat(service, fields, Length::context);
  if (prompt.empty()) refuse_field("messages", "the chat template makes no token of them");
  Request request = make_request(service, asked, std::move(prompt), max_tokens, "messages");
  if (logprobs) request.logprobs = static_cast<int>(top_logprobs.value_or(0));
  ChatReplyOptions options{
      .logprobs = logprobs, .token_ids = asked.return_token_ids, .stop_ids = request.stop_ids};
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  generate(service, std::move(call), asked, std::move(requests),
           std::make_unique<ChatReply>(service.tokenizer, std::move(options)));
}

}  // namespace atom::server
