#include "server/chat_reply.h"

#include <algorithm>

namespace atom::server {

Json ChatReply::token_json(int32_t token, float logprob) const {
  Json bytes = Json::array();
  for (const char byte : tokenizer_.token_bytes(token)) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", token_string(tokenizer_, token)},
          {"logprob", logprob_json(logprob)},
          {"bytes", std::move(bytes)}};
}

Json ChatReply::logprobs_of(const Delta& delta) const {
  if (!options_.logprobs) return nullptr;
  size_t count = delta.logprobs.size();
  if (delta.finish_reason == FinishReason::stop && count > 0 &&
      std::count(options_.stop_ids.begin(), options_.stop_ids.end(), delta.logprobs.back().token) > 0) {
    --count;
  }
  Json content = Json::array();
  for (size_t i = 0; i < count; ++i) {
    const TokenLogprob& token = delta.logprobs[i];
    Json item = token_json(token.token, token.logprob);
    Json top = Json::array();
    for (const auto& [id, logprob] : token.top) top.push_back(token_json(id, logprob));
    item["top_logprobs"] = std::move(top);
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

std::vector<Json> ChatReply::chunks(Choice& choice, const Delta& delta) {
  std::vector<Json> out;
  const auto add = [&](Json content, Json logprobs, const std::optional<FinishReason>& finish) -> Json& {
    out.push_back({{"index", choice.index},
                   {"delta", std::move(content)},
                   {"logprobs", std::move(logprobs)},
                   {"finish_reason", finish_json(finish)}});
    return out.back();
  };
  if (!choice.started) {
    choice.started = true;
    add({{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}}, nullptr, {});
  }
  Json logprobs = logprobs_of(delta);
  const bool has_logprobs = !logprobs.is_null() && !logprobs["content"].empty();
  if (!delta.text.empty() || has_logprobs || (options_.token_ids && !delta.tokens.empty())) {
    Json& chunk = add({{"content", delta.text}}, std::move(logprobs), {});
    if (options_.token_ids) chunk["token_ids"] = delta.tokens;
  }
  if (delta.finish_reason) add(Json::object(), nullptr, delta.finish_reason);
  return out;
}

Json ChatReply::whole(Choice& choice, const Delta& all) {
  Json out = {{"index", choice.index},
              {"message", {{"role", "assistant"}, {"content", all.text}, {"refusal", nullptr}}},
              {"logprobs", logprobs_of(all)},
              {"finish_reason", finish_json(all.finish_reason)}};
  if (options_.token_ids) out["token_ids"] = all.tokens;
  return out;
}

}  // namespace atom::server
