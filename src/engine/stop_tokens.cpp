#include "engine/stop_tokens.h"

#include <set>
#include <string>

#include "base/error.h"
#include "model/config.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

void add_id(const Json& value, const std::string& source, int64_t vocab, std::set<int32_t>& ids) {
  const bool fits = value.is_number_integer() && value.get<double>() >= 0 &&
                    value.get<double>() < static_cast<double>(vocab);
  require(fits, "{}: eos_token_id: expected a token id below {} or a list of them, found {}", source, vocab,
          printable(value.dump(-1, ' ', true)));
  ids.insert(value.get<int32_t>());
}

}  // namespace

std::vector<int32_t> end_of_text_ids(const Checkpoint& checkpoint, const text::Tokenizer& tokenizer) {
  std::set<int32_t> ids;
  const Json& config = checkpoint.config();
  const std::string source = checkpoint.path().string() + ": config";
  const int64_t vocab = ModelConfig::from_json(config, source).vocab;
  const auto number = config.find("eos_token_id");
  if (number != config.end() && number->is_array()) {
    for (const Json& item : *number) add_id(item, source, vocab, ids);
  } else if (number != config.end() && !number->is_null()) {
    add_id(*number, source, vocab, ids);
  }

  const Json& tokens = checkpoint.tokenizer_config();
  auto token = tokens.find("eos_token");
  if (token != tokens.end() && !token->is_null()) {
    const Json* text = &*token;
    // An object where the token has attributes (AddedToken).
    if (text->is_object() && text->contains("content")) text = &(*text)["content"];
    require(text->is_string(), "{}: tokenizer_config: eos_token: expected a string, found {}",
            checkpoint.path().string(), text->type_name());
    const auto id = tokenizer.id_of(text->get<std::string>());
    require(id.has_value(), "{}: tokenizer_config: eos_token: '{}' is not in the vocabulary",
            checkpoint.path().string(), printable(text->get<std::string>()));
    ids.insert(*id);
  }
  return {ids.begin(), ids.end()};
}

}  // namespace atom
