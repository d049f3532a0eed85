#include "text/chat_template.h"

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/parser.h"
#include "text/unicode.h"

namespace atom::text {

struct ChatTemplate::Parsed {
  std::string name;
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string source, std::string name) : source_(std::move(source)) {
  require(is_valid_utf8(source_), "{}: the template is not valid UTF-8", name);
  auto parsed = std::make_unique<Parsed>();
  parsed->name = std::move(name);
  parsed->body = jinja::parse_template(source_, parsed->name);
  parsed_ = std::move(parsed);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                 const nlohmann::ordered_json& variables) const {
  require(messages.is_array(), "{}: expected an array of messages, found {}", parsed_->name,
          messages.type_name());
  require(variables.is_object(), "{}: expected an object of variables, found {}", parsed_->name,
          variables.type_name());
  std::vector<std::pair<std::string, jinja::Value>> globals;
  globals.emplace_back("messages", jinja::Value::from_json(messages));
  globals.emplace_back("add_generation_prompt", jinja::Value(add_generation_prompt));
  for (const auto& [name, value] : variables.items())
    globals.emplace_back(name, jinja::Value::from_json(value));
  for (const char* name : {"tools", "documents"}) {
    if (!variables.contains(name)) globals.emplace_back(name, jinja::Value());
  }
  const jinja::Limits limits;
  return jinja::Evaluator(parsed_->name, limits, std::move(globals)).run(parsed_->body);
}

}  // namespace atom::text
