#include "server/reply.h"

#include <cmath>

#include "checkpoint/json.h"

namespace atom::server {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json logprob_json(float logprob) {
  constexpr float kLeast = -9999.0f;
  return std::isfinite(logprob) ? decimal(std::max(logprob, kLeast)) : static_cast<double>(kLeast);
}

Json finish_json(const std::optional<FinishReason>& reason) {
  return reason ? Json(std::string(name_of(*reason))) : Json(nullptr);
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

}  // namespace atom::server
