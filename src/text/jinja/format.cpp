#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

std::string string_repr(const std::string& text) {
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  std::string_view rest = text;
  while (!rest.empty()) {
    const Utf8Char c = decode_utf8(rest);
    const auto point = static_cast<uint32_t>(c.code_point);
    if (point == static_cast<uint32_t>(quote) || point == '\\') {
      out += '\\';
      out += static_cast<char>(point);
    } else if (point == '\n') {
      out += "\\n";
    } else if (point == '\r') {
      out += "\\r";
    } else if (point == '\t') {
      out += "\\t";
    } else if (!CharTable::get().has(c.code_point, CharTable::kHidden)) {
      out += rest.substr(0, c.length);
    } else {
      out += point < 0x100     ? fmt::format("\\x{:02x}", point)
             : point < 0x10000 ? fmt::format("\\u{:04x}", point)
                               : fmt::format("\\U{:08x}", point);
    }
    rest.remove_prefix(c.length);
  }
  return out + quote;
}

std::string items_repr(const std::vector<Value>& items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) out += (i > 0 ? ", " : "") + to_repr(items[i]);
  return out;
}

std::string sequence_repr(const Sequence& sequence) {
  const std::string items = items_repr(sequence.items);
  switch (sequence.kind) {
    case SequenceKind::kList:
      return "[" + items + "]";
    case SequenceKind::kTuple:
      return "(" + items + (sequence.items.size() == 1 ? ",)" : ")");
    case SequenceKind::kKeys:
      return "dict_keys([" + items + "])";
    case SequenceKind::kValues:
      return "dict_values([" + items + "])";
    case SequenceKind::kItems:
      return "dict_items([" + items + "])";
    case SequenceKind::kRange:
      break;
  }
  const std::string bounds = fmt::format("range({}, {}", sequence.start, sequence.stop);
  return bounds + (sequence.step == 1 ? ")" : fmt::format(", {})", sequence.step));
}

std::string dict_repr(const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.items()) {
    out += (out.size() > 1 ? ", " : "") + to_repr(key) + ": " + to_repr(value);
  }
  return out + "}";
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonOptions& options) : options_(options) {}

  void write(const Value& value, int level) {
    if (value.is_string()) {
      string(value.string());
    } else if (value.is_none() || value.is_bool() || value.is_int() || value.is_float()) {
      out += scalar(value);
    } else if (value.is_sequence(SequenceKind::kList) || value.is_sequence(SequenceKind::kTuple)) {
      bracketed('[', ']', value.list().items.size(), level,
                [&](size_t i) { write(value.list().items[i], level + 1); });
    } else if (value.is_dict()) {
      std::vector<Dict::Item> items = value.dict().items();
      if (options_.sort_keys) {
        // Charged for with the text that is made of them.
        StepBudget budget(std::numeric_limits<size_t>::max());
        std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
          return compare(a.first, b.first, "<", budget) < 0;
        });
      }
      bracketed('{', '}', items.size(), level, [&](size_t i) {
        const Value& key = items[i].first;
        require(key.is_string() || key.is_none() || key.is_number(),
                "keys must be str, int, float, bool or None, not {}", key.type_name());
        string(key.is_string() ? key.string() : scalar(key));
        out += options_.key_separator;
        write(items[i].second, level + 1);
      });
    } else {
      fail("Object of type {} is not JSON serializable", value.type_name());
    }
  }

  std::string out;

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.truth() ? "true" : "false";
    if (value.is_int()) return fmt::format("{}", value.integer());
    if (std::isnan(value.number())) return "NaN";
    if (std::isinf(value.number())) return value.number() < 0 ? "-Infinity" : "Infinity";
    return float_text(value.number());
  }

  template <class WriteItem>
  void bracketed(char open, char close, size_t count, int level, WriteItem write_item) {
    out += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += options_.item_separator;
      line(level + 1);
      write_item(i);
    }
    if (count > 0) line(level);
    out += close;
  }

  void line(int level) {
    require(out.size() <= options_.max_bytes, "a text grows beyond {} bytes", options_.max_bytes);
    if (!options_.indent) return;
    out += '\n';
    for (int i = 0; i < level; ++i) out += *options_.indent;
  }

  void string(std::string_view text) {
    out += '"';
    while (!text.empty()) {
      const Utf8Char c = decode_utf8(text);
      const auto point = static_cast<uint32_t>(c.code_point);
      switch (point) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\f':
          out += "\\f";
          break;
        case '\b':
          out += "\\b";
          break;
        default:
          if (point >= 0x20 && (point < 0x7F || !options_.ascii)) {
            append_utf8(out, c.code_point);
          } else if (point == 0x7F) {
            out += '\x7F';
          } else if (point < 0x10000) {
            out += fmt::format("\\u{:04x}", point);
          } else {
            out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((point - 0x10000) >> 10),
                               0xDC00 + (point & 0x3FF));
          }
      }
      text.remove_prefix(c.length);
    }
    out += '"';
  }

  const JsonOptions& options_;
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  // The shortest digits that read back as the same number, then Python's choice of form.
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr;
  text.assign(buffer, fixed_end);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string to_repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_markup()) return "Markup(" + string_repr(value.string()) + ")";
  if (value.is_string()) return string_repr(value.string());
  if (value.is_sequence()) return sequence_repr(value.list());
  if (value.is_dict()) return dict_repr(value.dict());
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.truth() ? "True" : "False";
  if (value.is_int()) return fmt::format("{}", value.integer());
  if (value.is_float()) return float_text(value.number());
  fail("printing a {} is not supported", value.type_name());
}

std::string to_text(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return "";
  return to_repr(value);
}

std::string to_json(const Value& value, const JsonOptions& options) {
  JsonWriter writer(options);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace atom::text::jinja
