#include "checkpoint/hf_checkpoint.h"

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "checkpoint/directory_tokenizer.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFile = "tokenizer.json";

bool has(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// Of config.json and tokenizer_config.json: they have some kilobytes, and what hostile ones may take in
/// memory is 25 times their size.
constexpr JsonLimits kConfigLimits{8'000'000, 64};

/// A JSON document that must be there and be an object.
nlohmann::ordered_json read_object(const fs::path& path, JsonLimits limits = kConfigLimits) {
  require(has(path), "{}: missing from the model directory", path.string());
  nlohmann::ordered_json document = read_json_file(path, limits);
  require(document.is_object(), "{}: expected a JSON object, found {}", path.string(), document.type_name());
  return document;
}

/// What runs on text needs a tokenizer; what does not (random models, measurements of speed) can do without.
std::optional<nlohmann::ordered_json> read_tokenizer(const fs::path& directory) {
  const fs::path path = directory / kTokenizerFile;
  return has(path) ? std::optional(read_object(path, {})) : std::nullopt;
}

nlohmann::ordered_json read_tokenizer_config(const fs::path& directory) {
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  if (const fs::path path = directory / "tokenizer_config.json"; has(path)) config = read_object(path);
  if (const fs::path path = directory / "chat_template.jinja"; has(path)) {
    const std::string text = read_text_file(path, size_t{1} << 24);
    require(is_valid_utf8(text), "{}: not valid UTF-8", path.string());
    config["chat_template"] = text;
  }
  return config;
}

}  // namespace

HfCheckpoint::HfCheckpoint(const fs::path& directory)
    : Checkpoint(directory),
      config_(read_object(directory / "config.json")),
      tokenizer_json_(read_tokenizer(directory)),
      tokenizer_config_(read_tokenizer_config(directory)),
      tensors_(directory) {
  add_special_tokens_map(directory, tokenizer_config_);
  if (!tokenizer_json_) tokenizer_json_ = read_directory_tokenizer(directory, tokenizer_config_);
}

const nlohmann::ordered_json& HfCheckpoint::tokenizer_json() const {
  require(has_tokenizer(), "{}: missing from the model directory", (path() / kTokenizerFile).string());
  return *tokenizer_json_;
}

TensorInfo HfCheckpoint::info(const std::string& name) const {
  const SafetensorsEntry& entry = tensors_.file_of(name).get(name);
  return {std::string(name_of(entry.dtype)), entry.shape, entry.bytes.size(), entry.dtype};
}

}  // namespace atom
