#include "text/added_tokens.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

bool ends_with_word(std::string_view text) {
  return !text.empty() &&
         CharTable::get().has(decode_utf8(text.substr(last_char(text))).code_point, CharTable::kWord);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && CharTable::get().has(decode_utf8(text).code_point, CharTable::kWord);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].pattern.empty()) continue;
    (tokens_[i].normalized ? normalized_ : verbatim_).add(tokens_[i].pattern, static_cast<int32_t>(i));
  }
}

void AddedTokens::pass(const ByteTrie& finder, std::string_view text, bool parse_special,
                       std::vector<Segment>& out) const {
  size_t done = 0;
  size_t i = finder.empty() ? text.size() : 0;
  while (i < text.size()) {
    const int32_t index = finder.longest(text.substr(i)).index;
    if (index < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = i;
    size_t end = i + token.pattern.size();
    i = end;
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token.lstrip) begin = std::max(white_space_begin_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += white_space_at_start(text.substr(end));
    if (done < begin) out.push_back({text.substr(done, begin - done), -1});
    out.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done), -1});
}

void AddedTokens::split_verbatim(std::string_view text, bool parse_special, std::vector<Segment>& out) const {
  out.clear();
  pass(verbatim_, text, parse_special, out);
}

void AddedTokens::split_normalized(std::string_view text, bool parse_special,
                                   std::vector<Segment>& out) const {
  out.clear();
  pass(normalized_, text, parse_special, out);
}

}  // namespace atom::text
