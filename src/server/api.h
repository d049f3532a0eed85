#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "server/http.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace atom::server {

class Submitter;

struct ApiOptions {
  /// The name under which /v1/models lists the model; requests must name it.
  std::string model_name;
  /// When the model was loaded, Unix seconds.
  int64_t created = 0;
  /// The model's own chat template; none: /v1/chat/completions answers 400.
  std::optional<text::ChatTemplate> chat_template;
  /// bos_token, eos_token, ... for the template.
  nlohmann::ordered_json template_variables = nlohmann::ordered_json::object();
  /// Tokens that end a text.
  std::vector<int32_t> end_of_text_ids;
  /// max_tokens of /v1/completions where a request does not say (OpenAI's 16).
  int64_t default_max_tokens = 16;
  /// Choices (prompts times n) that one request may ask for.
  int64_t max_choices = 128;
};

/// The OpenAI-compatible protocol over one engine, and what is beside it: /v1/completions,
/// /v1/chat/completions, /v1/models, /tokenize, /detokenize, /health, /ready, /metrics, /openapi.json.
/// Thread-safe.
class Api {
 public:
  /// Tokenizer and engine must outlive its calls. It must outlive the engine's thread, which tells it of what
  /// has been asked: destroy the engine first.
  Api(Engine& engine, const text::Tokenizer& tokenizer, ApiOptions options);
  /// Over what stands for an engine (submitter.h).
  Api(std::unique_ptr<Submitter> submitter, const text::Tokenizer& tokenizer, ApiOptions options);
  ~Api();

  /// Answers a request. Unknown paths get 404, known ones with another method 405.
  void handle(HttpRequest request, std::shared_ptr<Exchange> exchange);

  /// For /metrics: a response of this status to this path has been sent (the server's own errors too). Paths
  /// that are not the API's are counted together.
  void count_response(std::string_view path, unsigned status);

  /// /ready answers 503 from now on.
  void set_draining();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::server
