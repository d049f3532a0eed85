#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/request_fields.h"
#include "server/token_text.h"

namespace atom::server {

/// JSON as text. Text that came from outside is well-formed UTF-8 by now; should any not be, it must not end
/// the process.
std::string dump(const Json& json);

/// One of the texts that a request asks for.
struct Choice {
  /// The engine's request it belongs to, and its number among all choices of the response.
  size_t prompt = 0;
  size_t index = 0;
  /// Whether something of it has been written.
  bool started = false;
  TextOffsets offsets;
};

/// How generated text becomes the "choices" of a response, in one of the protocol's two forms. Called for one
/// response by one thread at a time.
class ReplyFormat {
 public:
  virtual ~ReplyFormat() = default;

  /// "cmpl-" and "text_completion", say.
  virtual const char* id_prefix() const = 0;
  virtual const char* object() const = 0;
  virtual const char* chunk_object() const = 0;

  /// The prompt of this number has been computed.
  virtual void on_prompt(size_t prompt, PromptResult result) = 0;
  /// The elements of "choices" that stream what a delta adds, each in an event of its own; may be none.
  virtual std::vector<Json> chunks(Choice& choice, const Delta& delta) = 0;
  /// The element of "choices" of a whole response; `all` is the sum of the choice's deltas.
  virtual Json whole(Choice& choice, const Delta& all) = 0;
};

/// A log-probability as JSON, in the fewest digits that tell it from others; what JSON has no number for is
/// -9999, as OpenAI writes it.
Json logprob_json(float logprob);

/// "stop", "length", or null.
Json finish_json(const std::optional<FinishReason>& reason);

/// "usage" of a response.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
};
Json usage_json(const Usage& usage);

}  // namespace atom::server
