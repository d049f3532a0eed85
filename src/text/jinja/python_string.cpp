#include "text/jinja/python_string.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"
#include "text/case.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

/// str.isspace: White_Space and the four separators of ASCII.
bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

size_t last_char(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

/// The characters of a text, for asking whether one is among them.
class CharSet {
 public:
  explicit CharSet(std::string_view text) {
    while (!text.empty()) {
      const Utf8Char c = decode_utf8(text);
      points_.push_back(c.code_point);
      text.remove_prefix(c.length);
    }
    std::sort(points_.begin(), points_.end());
  }
  bool has(std::string_view text) const {
    return std::binary_search(points_.begin(), points_.end(), decode_utf8(text).code_point);
  }

 private:
  std::vector<char32_t> points_;
};

std::string reversed(std::string_view text) {
  return std::string(text.rbegin(), text.rend());
}

}  // namespace

size_t white_space_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(i));
    if (!is_space(c.code_point)) break;
    i += c.length;
  }
  return i;
}

std::string_view strip_white_space_left(std::string_view text) {
  return text.substr(white_space_prefix(text));
}

std::string_view strip_white_space_right(std::string_view text) {
  while (!text.empty()) {
    const size_t i = last_char(text);
    if (!is_space(decode_utf8(text.substr(i)).code_point)) break;
    text = text.substr(0, i);
  }
  return text;
}

std::string_view strip_left(std::string_view text, std::string_view set) {
  const CharSet characters(set);
  while (!text.empty() && characters.has(text)) text.remove_prefix(decode_utf8(text).length);
  return text;
}

std::string_view strip_right(std::string_view text, std::string_view set) {
  const CharSet characters(set);
  while (!text.empty() && characters.has(text.substr(last_char(text))))
    text = text.substr(0, last_char(text));
  return text;
}

size_t find_part(std::string_view text, std::string_view part) {
  if (part.empty()) return 0;
  const void* found = memmem(text.data(), text.size(), part.data(), part.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t find_last_part(std::string_view text, std::string_view part) {
  if (part.size() > text.size()) return std::string_view::npos;
  if (part.size() < 8) return text.rfind(part);
  const size_t found = find_part(reversed(text), reversed(part));
  return found == std::string_view::npos ? found : text.size() - found - part.size();
}

size_t char_count(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string_view> chars(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t length = decode_utf8(text).length;
    out.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return out;
}

std::string upper(std::string_view text) {
  return change_case(text, Case::kUpper);
}
std::string lower(std::string_view text) {
  return change_case(text, Case::kLower);
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  const size_t first = decode_utf8(text).length;
  return upper(text.substr(0, first)) + lower(text.substr(first));
}

std::string title(std::string_view text) {
  std::string out;
  size_t run = 0;
  bool in_word = false;
  const auto flush = [&](size_t end) {
    out += in_word ? capitalize(text.substr(run, end - run)) : std::string(text.substr(run, end - run));
    run = end;
  };
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    const bool letter = CharTable::get().has(c.code_point, CharTable::kLetter);
    if (letter != in_word) {
      flush(i);
      in_word = letter;
    }
    i += c.length;
  }
  flush(text.size());
  return out;
}

std::vector<std::string_view> split_white_space(std::string_view text, int64_t limit) {
  std::vector<std::string_view> out;
  text = strip_white_space_left(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Utf8Char c = decode_utf8(text.substr(end));
      if (is_space(c.code_point)) break;
      end += c.length;
    }
    out.push_back(text.substr(0, end));
    text = strip_white_space_left(text.substr(end));
  }
  return out;
}

std::vector<std::string_view> split_white_space_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> out;
  text = strip_white_space_right(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t last = last_char(text.substr(0, begin));
      if (is_space(decode_utf8(text.substr(last)).code_point)) break;
      begin = last;
    }
    out.push_back(text.substr(begin));
    text = strip_white_space_right(text.substr(0, begin));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t found = find_part(text, separator);
    if (found == std::string_view::npos) break;
    out.push_back(text.substr(0, found));
    text.remove_prefix(found + separator.size());
  }
  out.push_back(text);
  return out;
}

std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit) {
  const std::string backwards = reversed(text);
  std::vector<std::string_view> out;
  size_t end = text.size();
  for (const std::string_view part : split(backwards, reversed(separator), limit)) {
    out.push_back(text.substr(end - part.size(), part.size()));
    end -= std::min(end, part.size() + separator.size());
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  const auto is_break = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
  };
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    size_t next = i + c.length;
    if (is_break(c.code_point)) {
      if (c.code_point == '\r' && next < text.size() && text[next] == '\n') ++next;
      out.push_back(text.substr(begin, (keep_ends ? next : i) - begin));
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit,
                    size_t max_bytes) {
  std::string out;
  int64_t count = 0;
  const auto room = [&] { require(out.size() <= max_bytes, "a string grows beyond {} bytes", max_bytes); };
  if (from.empty()) {
    while (limit < 0 || count < limit) {
      out += to;
      ++count;
      if (text.empty()) break;
      const size_t length = decode_utf8(text).length;
      out += text.substr(0, length);
      text.remove_prefix(length);
      room();
    }
    return out += text;
  }
  while (limit < 0 || count < limit) {
    const size_t found = find_part(text, from);
    if (found == std::string_view::npos) break;
    out += text.substr(0, found);
    out += to;
    text.remove_prefix(found + from.size());
    ++count;
    room();
  }
  return out += text;
}

}  // namespace atom::text::jinja
