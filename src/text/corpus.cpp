#include "text/corpus.h"

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "text/json.h"
#include "text/record_reader.h"

namespace atom::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, const char*> kShareGptRoles[] = {
    {"human", "user"},        {"user", "user"},      {"gpt", "assistant"},  {"assistant", "assistant"},
    {"chatgpt", "assistant"}, {"bing", "assistant"}, {"bard", "assistant"}, {"system", "system"},
};

const Json& member(const Json& object, const char* key, const std::string& where) {
  require(object.is_object() && object.contains(key), "{}: expected an object with \"{}\"", where, key);
  return object[key];
}

std::string string_member(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key, where);
  require(value.is_string(), "{}.{}: expected a string, found {}", where, key, value.type_name());
  return value.get<std::string>();
}

Json share_gpt_messages(const Json& turns, const std::string& where) {
  require(turns.is_array(), "{}: expected an array, found {}", where, turns.type_name());
  Json messages = Json::array();
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", where, i);
    const std::string from = string_member(turns[i], "from", place);
    const auto role = std::find_if(std::begin(kShareGptRoles), std::end(kShareGptRoles),
                                   [&](const auto& entry) { return from == entry.first; });
    require(role != std::end(kShareGptRoles), "{}.from: expected human, gpt or system, found \"{}\"", place,
            printable(from));
    messages.push_back({{"role", role->second}, {"content", string_member(turns[i], "value", place)}});
  }
  return messages;
}

Document to_document(const Json& record, const std::string& where) {
  Document document;
  // An empty conversation beside a text is none.
  const bool has_text = record.contains("text");
  const auto has = [&](const char* key) {
    return record.contains(key) && !(has_text && record[key].empty());
  };
  if (has("messages")) {
    const Json& messages = record["messages"];
    require(messages.is_array(), "{}.messages: expected an array, found {}", where, messages.type_name());
    for (size_t i = 0; i < messages.size(); ++i) {
      string_member(messages[i], "role", fmt::format("{}.messages[{}]", where, i));
      member(messages[i], "content", fmt::format("{}.messages[{}]", where, i));
    }
    document.messages = messages;
  } else if (has("conversations")) {
    document.messages = share_gpt_messages(record["conversations"], where + ".conversations");
  } else {
    require(has_text, "{}: expected \"messages\", \"conversations\" or \"text\"", where);
    document.text = string_member(record, "text", where);
  }
  return document;
}

bool is_json(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return extension == ".json" || extension == ".jsonl" || extension == ".ndjson";
}

/// Whether JSON could go on behind `text`: what is wrong with it is only that it ends.
bool is_beginning_of_json(const std::string& text) {
  try {
    // Nothing is kept of what is parsed.
    const Json nothing = Json::parse(text, [](int, Json::parse_event_t, Json&) { return false; });
    return nothing.is_discarded();
  } catch (const Json::parse_error& error) {
    return error.byte > text.size();
  }
}

Corpus read_records(const std::filesystem::path& path, const CorpusOptions& options) {
  RecordReader reader(path);
  Corpus corpus;
  corpus.complete = false;
  std::vector<Document>& documents = corpus.documents;
  while (reader.count() < options.skip || reader.count() - options.skip < options.limit) {
    throw_if_interrupted();
    const std::optional<std::string> record = reader.next();
    if (!record) {
      corpus.complete = true;
      break;
    }
    if (reader.count() <= options.skip) continue;
    const std::string where = fmt::format("{}: record {}", path.string(), reader.count());
    Document document = to_document(parse_ordered_json(*record, where), where);
    if (document.is_conversation() ? !document.messages.empty() : !document.text.empty()) {
      documents.push_back(std::move(document));
    }
  }
  if (reader.cut_off()) {
    require(is_beginning_of_json(reader.unfinished()), "{}: record {}: not JSON", path.string(),
            reader.count() + 1);
    spdlog::warn("{}: the file ends in the middle of its JSON; {} whole records were read", path.string(),
                 reader.count());
  }
  require(!documents.empty(), "{}: no text found in {} records, of which {} were to be skipped",
          path.string(), reader.count(), options.skip);
  return corpus;
}

/// What stands for a conversation when there is no template: the texts of its messages.
std::string joined_contents(const Json& messages) {
  std::string text;
  for (const Json& message : messages) {
    if (message["content"].is_string()) text += message["content"].get<std::string>() + "\n";
  }
  return text;
}

/// Binary files and UTF-16 have NUL bytes; texts have none.
void check_plain_text(const std::string& text, const std::filesystem::path& path) {
  const size_t nul = text.find('\0');
  require(nul == std::string::npos, "{}: not a text: byte {} is NUL (a text is expected in UTF-8)",
          path.string(), nul);
  require(text.find_first_not_of(" \t\r\n") != std::string::npos, "{}: expected text, found none",
          path.string());
  size_t ill_formed = 0;
  size_t first = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(std::string_view(text).substr(i));
    if (!c.valid && ill_formed++ == 0) first = i;
    i += c.length;
  }
  if (ill_formed > 0) {
    spdlog::warn("{}: {} bytes are not UTF-8, the first is byte {}", path.string(), ill_formed, first);
  }
}

}  // namespace

Corpus read_corpus(const std::filesystem::path& path, const CorpusOptions& options) {
  if (is_json(path)) return read_records(path, options);
  require(options.skip == 0, "{}: a plain text is one record, {} cannot be skipped", path.string(),
          options.skip);
  Document document;
  document.text = read_text_file(path);
  check_plain_text(document.text, path);
  Corpus corpus;
  if (options.limit > 0) corpus.documents.push_back(std::move(document));
  return corpus;
}

std::vector<int32_t> tokenize_corpus(const std::vector<Document>& documents, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat_template, const Json& variables,
                                     size_t max_tokens) {
  std::vector<int32_t> tokens;
  size_t refused = 0;
  std::string reason;
  for (const Document& document : documents) {
    if (tokens.size() >= max_tokens) break;
    throw_if_interrupted();
    std::vector<int32_t> ids;
    if (!document.is_conversation()) {
      ids = tokenizer.encode(document.text);
    } else if (chat_template == nullptr) {
      ids = tokenizer.encode(joined_contents(document.messages));
    } else {
      std::string text;
      try {
        text = chat_template->render(document.messages, false, variables);
      } catch (const Interrupted&) {
        throw;
      } catch (const Error& error) {
        if (refused++ == 0) reason = error.what();
        continue;
      }
      ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special = true});
    }
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  }
  require(refused == 0 || refused < documents.size(), "the chat template refuses every conversation: {}",
          reason);
  if (refused > 0) {
    spdlog::warn("{} of {} conversations were left out, as the chat template refuses them: {}", refused,
                 documents.size(), reason);
  }
  if (tokens.size() > max_tokens) tokens.resize(max_tokens);
  return tokens;
}

}  // namespace atom::text
