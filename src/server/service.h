#pragma once

#include <chrono>
#include <memory>

#include "server/api.h"
#include "server/generation_fields.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/submitter.h"

namespace atom::server {

/// What the endpoints work with; outlives every exchange.
struct Service {
  std::unique_ptr<Submitter> submitter;
  const text::Tokenizer& tokenizer;
  ApiOptions options;
  Metrics metrics;
  /// Bytes of the longest token: a text of more than that times the context can't fit.
  size_t max_token_bytes = 1;
};

/// One request that has a JSON body.
struct Call {
  Json body;
  std::shared_ptr<Exchange> exchange;
  std::chrono::steady_clock::time_point arrival;
  /// What the response's id ends with.
  std::string id;
};

/// Gives the requests of a call to the engine and answers it as `format` writes (generation.h).
void generate(Service& service, Call call, const GenerationFields& asked, std::vector<Request> requests,
              std::unique_ptr<ReplyFormat> format);

/// The endpoints. They throw RequestError, Error, Overloaded or Unavailable before anything has been
/// answered.
void complete(Service& service, Call call);
void chat(Service& service, Call call);
Json tokenize(Service& service, const Json& body);
Json detokenize(Service& service, const Json& body);

/// 404 unless `model` is served here; 400 where it is missing.
void check_model(Fields& fields, const ApiOptions& options);

/// Whether a text may have more tokens than the context.
enum class Length { any, context };

/// Tokens of a text. RequestError 400 context_length_exceeded, naming `field`, for a text whose bytes can't
/// fit in the context, and for Length::context for one whose tokens do not.
std::vector<int32_t> encode_text(const Service& service, const std::string& text, bool add_special_tokens,
                                 const std::string& field, Length length);

/// The tokens of a chat, up to where the answer begins. Reads `messages`.
std::vector<int32_t> encode_chat(const Service& service, Fields& fields, Length length);

/// A request for the engine. RequestError 400 context_length_exceeded unless prompt and answer fit in the
/// context.
Request make_request(const Service& service, const GenerationFields& asked, std::vector<int32_t> prompt,
                     std::optional<int64_t> max_tokens, const std::string& field);

}  // namespace atom::server
