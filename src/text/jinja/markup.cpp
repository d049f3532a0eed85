#include "text/jinja/markup.h"

#include <algorithm>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"

namespace atom::text::jinja {
namespace {

/// Methods that take their arguments as they are.
bool takes_plain(std::string_view name) {
  for (const std::string_view known : {"strip", "lstrip", "rstrip"}) {
    if (known == name) return true;
  }
  for (const std::string_view known : {"startswith", "endswith", "find", "rfind", "index", "rindex", "count",
                                       "split", "rsplit", "splitlines", "partition", "rpartition"}) {
    if (known == name) return true;
  }
  return false;
}

Value as_markup(const Value& value) {
  if (value.is_string()) return Value(Markup{value.string()});
  if (!value.is_sequence()) return value;
  std::vector<Value> items;
  for (const Value& item : value.list().items) items.push_back(as_markup(item));
  return Value::sequence(std::move(items), value.list().kind);
}

}  // namespace

Value escaped(Evaluator& evaluator, const Value& value) {
  if (value.is_markup()) return value;
  const std::string text = to_text(value);
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  evaluator.charge_text(out.size());
  return Value(Markup{std::move(out)});
}

Value call_markup_method(Evaluator& evaluator, const Function& method, const Arguments& arguments) {
  require(method.name != "format", "the method 'format' of safe text is not supported");
  const Value self(method.self.string());
  if (takes_plain(method.name)) return as_markup(method.built_in(evaluator, self, arguments));
  const auto escape_text = [&](const Value& value) {
    if (value.is_string()) return escaped(evaluator, value);
    if (method.name != "join") return value;
    std::vector<Value> items;
    for (const Value& item : evaluator.items_of(value)) items.push_back(escaped(evaluator, item));
    return Value::sequence(std::move(items));
  };
  Arguments safe;
  for (const Value& value : arguments.positional) safe.positional.push_back(escape_text(value));
  for (const auto& [name, value] : arguments.named) safe.named.emplace_back(name, escape_text(value));
  return as_markup(method.built_in(evaluator, self, safe));
}

}  // namespace atom::text::jinja
