#include "server/service.h"

#include <utility>

#include "server/generation.h"

namespace atom::server {
namespace {

[[noreturn]] void refuse_length(int64_t context, const std::string& found, const std::string& field) {
  throw RequestError(
      400,
      fmt::format("{}: this model's context is {} tokens for prompt and answer together; found {}", field,
                  context, found),
      field, "context_length_exceeded");
}

}  // namespace

void generate(Service& service, Call call, const GenerationFields& asked, std::vector<Request> requests,
              std::unique_ptr<ReplyFormat> format) {
  start_generation(*service.submitter, service.metrics, std::move(requests),
                   TextOffsets(service.tokenizer, asked.skip_special_tokens),
                   {.id = std::move(call.id),
                    .model = service.options.model_name,
                    .stream = asked.stream,
                    .include_usage = asked.include_usage,
                    .arrival = call.arrival},
                   std::move(format), std::move(call.exchange));
}

void check_model(Fields& fields, const ApiOptions& options) {
  fields.required("model", "a string, the model's name");
  const std::string name = fields.string("model").value();
  if (name != options.model_name) {
    throw RequestError(
        404, fmt::format("model: \"{}\" is not served here; \"{}\" is", printable(name), options.model_name),
        "model", "model_not_found");
  }
}

std::vector<int32_t> encode_text(const Service& service, const std::string& text, bool add_special_tokens,
                                 const std::string& field, Length length) {
  const int64_t context = service.submitter->context();
  if (text.size() / service.max_token_bytes > static_cast<size_t>(context)) {
    refuse_length(context, fmt::format("a text of {} bytes", text.size()), field);
  }
  std::vector<int32_t> tokens = service.tokenizer.encode(text, {.add_special_tokens = add_special_tokens});
  if (length == Length::context && tokens.size() > static_cast<size_t>(context)) {
    refuse_length(context, fmt::format("{} in the prompt", tokens.size()), field);
  }
  return tokens;
}

Request make_request(const Service& service, const GenerationFields& asked, std::vector<int32_t> prompt,
                     std::optional<int64_t> max_tokens, const std::string& field) {
  const int64_t context = service.submitter->context();
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  if (prompt_tokens + max_tokens.value_or(1) > context) {
    refuse_length(context,
                  max_tokens ? fmt::format("{} in the prompt and {} to generate", prompt_tokens, *max_tokens)
                             : fmt::format("{} in the prompt", prompt_tokens),
                  field);
  }
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling = asked.sampling;
  request.n = asked.n;
  request.stop = asked.stop;
  request.stop_ids = asked.stop_ids;
  if (!asked.ignore_eos) {
    const std::vector<int32_t>& ends = service.options.end_of_text_ids;
    request.stop_ids.insert(request.stop_ids.end(), ends.begin(), ends.end());
  }
  request.skip_special_tokens = asked.skip_special_tokens;
  return request;
}

}  // namespace atom::server
