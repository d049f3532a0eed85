#include "server/completion_reply.h"

#include <algorithm>

namespace atom::server {

struct CompletionReply::Logprobs {
  Json tokens = Json::array();
  Json token_logprobs = Json::array();
  Json top_logprobs = Json::array();
  Json text_offset = Json::array();

  Json json() && {
    return {{"tokens", std::move(tokens)},
            {"token_logprobs", std::move(token_logprobs)},
            {"top_logprobs", std::move(top_logprobs)},
            {"text_offset", std::move(text_offset)}};
  }
};

void CompletionReply::on_prompt(size_t prompt, PromptResult result) {
  results_[prompt] = std::move(result);
}

void CompletionReply::add(Logprobs& logprobs, int64_t offset, int32_t token,
                          const TokenLogprob* logprob) const {
  logprobs.tokens.push_back(token_string(tokenizer_, token, "bytes:"));
  logprobs.text_offset.push_back(offset);
  if (!logprob) {
    // Nothing comes before the first token, so nothing says how likely it is.
    logprobs.token_logprobs.push_back(nullptr);
    logprobs.top_logprobs.push_back(nullptr);
    return;
  }
  logprobs.token_logprobs.push_back(logprob_json(logprob->logprob));
  Json top = Json::object();
  const auto put = [&](int32_t id, float value) {
    // Of tokens with the same text the most likely one stays.
    const std::string text = token_string(tokenizer_, id, "bytes:");
    if (!top.contains(text)) top[text] = logprob_json(value);
  };
  for (const auto& [id, value] : logprob->top) put(id, value);
  put(logprob->token, logprob->logprob);
  logprobs.top_logprobs.push_back(std::move(top));
}

void CompletionReply::echo(Choice& choice, std::string& text, Logprobs& logprobs) const {
  const CompletionPrompt& prompt = prompts_[choice.prompt];
  const PromptResult& result = results_[choice.prompt];
  if (options_.logprobs) {
    size_t at = 0;  // bytes of the written text that tokens account for
    for (size_t i = 0; i < prompt.tokens.size(); ++i) {
      const int32_t token = prompt.tokens[i];
      const bool known = i > 0 && i - 1 < result.logprobs.size();
      add(logprobs, choice.offsets.next(), token, known ? &result.logprobs[i - 1] : nullptr);
      if (!prompt.written) {
        choice.offsets.add(token);
        continue;
      }
      const std::string_view bytes = tokenizer_.token_bytes(token);
      if (std::string_view(prompt.text).substr(at).starts_with(bytes)) {
        at += bytes.size();
        choice.offsets.add_bytes(bytes);
      }
    }
  }
  text = prompt.text;
  choice.offsets.start_behind(prompt.text);
}

std::vector<Json> CompletionReply::chunks(Choice& choice, const Delta& delta) {
  const bool echoes = options_.echo && !choice.started;
  if (!echoes && delta.text.empty() && !options_.logprobs && !delta.finish_reason && !options_.token_ids) {
    return {};
  }
  return {whole(choice, delta)};
}

Json CompletionReply::whole(Choice& choice, const Delta& all) {
  std::string text;
  Logprobs logprobs;
  if (options_.echo && !choice.started) echo(choice, text, logprobs);
  choice.started = true;
  text += all.text;
  if (options_.logprobs) {
    for (const TokenLogprob& token : all.logprobs) {
      add(logprobs, choice.offsets.next(), token.token, &token);
      choice.offsets.add(token.token);
    }
  }
  Json out = {{"index", choice.index},
              {"text", std::move(text)},
              {"logprobs", options_.logprobs ? std::move(logprobs).json() : Json(nullptr)},
              {"finish_reason", finish_json(all.finish_reason)}};
  if (options_.token_ids) out["token_ids"] = all.tokens;
  return out;
}

}  // namespace atom::server
