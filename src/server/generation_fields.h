#pragma once

#include <optional>
#include <vector>

#include "engine/request.h"
#include "server/request_fields.h"
#include "text/tokenizer.h"

namespace atom::server {

/// What /v1/completions and /v1/chat/completions ask for alike.
struct GenerationFields {
  SamplingParams sampling;
  int n = 1;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;  // stop_token_ids alone
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;
  bool return_token_ids = false;
};

inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 1000;
inline constexpr size_t kMaxStopIds = 64;
inline constexpr size_t kMaxLogitBias = 1024;

/// Reads them, and passes over fields that change nothing here (user, metadata, ...). `max_n` bounds n.
/// Throws RequestError.
GenerationFields read_generation_fields(Fields& fields, const text::Tokenizer& tokenizer, int64_t max_n);

}  // namespace atom::server
