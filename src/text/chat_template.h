#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

namespace atom::text {

/// A chat template in the part of Jinja that Hugging Face models use, with Hugging Face's settings
/// (trim_blocks, lstrip_blocks, sandbox, loop controls). Renders the same text as `jinja2`; what the
/// interpreter does not know is an Error that names the construct and its line. A run is stopped with an
/// Error when it takes too many steps, makes too much text or recurses too deeply.
///
/// Immutable; render may be called from any number of threads.
class ChatTemplate {
 public:
  /// `name` says in errors where the template comes from. Throws Error when the source does not parse.
  ChatTemplate(std::string source, std::string name);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  const std::string& source() const { return source_; }

  /// `messages` is an array of objects such as {"role": "user", "content": "Hi"}. `variables` is an object of
  /// further variables (bos_token, eos_token, tools, ...); `tools` and `documents` are none unless given, as
  /// in transformers. Throws Error when the template raises one, or as said above.
  std::string render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                     const nlohmann::ordered_json& variables = nlohmann::ordered_json::object()) const;

 private:
  struct Parsed;
  std::string source_;
  std::unique_ptr<const Parsed> parsed_;
};

}  // namespace atom::text
