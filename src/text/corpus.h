#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace atom::text {

/// One piece of calibration or evaluation text: plain text, or the messages of a conversation
/// ([{"role": ..., "content": ...}, ...]).
struct Document {
  std::string text;
  nlohmann::ordered_json messages;  ///< null for plain text
  bool is_conversation() const { return messages.is_array(); }
};

struct Corpus {
  std::vector<Document> documents;
  bool complete = true;  ///< the file was read to its end
};

struct CorpusOptions {
  size_t skip = 0;                                    ///< records to pass over
  size_t limit = std::numeric_limits<size_t>::max();  ///< records to read at most
};

/// Reads text by the file's extension, in any case. `.json` and `.jsonl` (or `.ndjson`): records one behind
/// the other or in one array, each {"messages": [{"role", "content"}]}, {"conversations": [{"from",
/// "value"}]} (ShareGPT; human, gpt and system become user, assistant and system) or {"text"}. Anything else:
/// one plain text.
///
/// Records are read one at a time, so memory is bounded by what is returned. A file that was cut off inside a
/// record gives the records before it, and the log says so. Conversations without messages count as records
/// and give nothing. Ill-formed UTF-8 in a plain text is let pass with a warning. Throws Error naming the
/// file when it cannot be read, is not a text (has NUL bytes), a record is not understood, or nothing was
/// found.
Corpus read_corpus(const std::filesystem::path& path, const CorpusOptions& options = {});

/// All documents as one stream of tokens, at most `max_tokens`. Plain text is encoded as it is; conversations
/// are rendered by `chat_template` (without one, their contents are joined by newlines). Conversations that
/// the template refuses are left out, and the log says how many; throws Error when it refuses all.
/// `variables` go to the template.
std::vector<int32_t> tokenize_corpus(
    const std::vector<Document>& documents, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
    const nlohmann::ordered_json& variables = nlohmann::ordered_json::object(),
    size_t max_tokens = std::numeric_limits<size_t>::max());

}  // namespace atom::text
