#include "server/service.h"

namespace atom::server {

Json tokenize(Service& service, const Json& body) {
  Fields fields(body);
  if (fields.find("model")) check_model(fields, service.options);
  const bool chat = fields.find("messages") != nullptr;
  const auto add_special_tokens = fields.boolean("add_special_tokens");
  const std::optional<std::string> prompt = fields.string("prompt");
  fields.finish();
  if (chat == prompt.has_value()) {
    refuse_field("prompt", "expected either prompt, a string, or messages, a list");
  }
  if (chat && add_special_tokens.value_or(false)) {
    refuse_field("add_special_tokens", "is allowed only with prompt: a chat template writes its own");
  }
  const std::vector<int32_t> tokens =
      chat ? encode_chat(service, fields, Length::any)
           : encode_text(service, *prompt, add_special_tokens.value_or(true), "prompt", Length::any);
  return {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", service.submitter->context()}};
}

Json detokenize(Service& service, const Json& body) {
  Fields fields(body);
  if (fields.find("model")) check_model(fields, service.options);
  const Json& list = fields.required("tokens", "a list of token ids");
  const std::vector<int32_t> tokens = read_token_ids(list, "tokens", service.tokenizer.vocab_size());
  fields.finish();
  return {{"prompt", service.tokenizer.decode(tokens)}};
}

}  // namespace atom::server
