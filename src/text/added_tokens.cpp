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

void AddedTokens::Finder::add(std::string_view content, int32_t index) {
  if (nodes_.empty()) nodes_.emplace_back();
  uint32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    const auto& edges = nodes_[node].edges;
    const auto edge = std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.byte == byte; });
    if (edge != edges.end()) {
      node = edge->node;
      continue;
    }
    const auto next = static_cast<uint32_t>(nodes_.size());
    nodes_.emplace_back();
    nodes_[node].edges.push_back({byte, next});
    if (node == 0) first_[byte] = next;
    node = next;
  }
  if (nodes_[node].token < 0) nodes_[node].token = index;
}

int32_t AddedTokens::Finder::longest(std::string_view text, size_t begin) const {
  uint32_t node = first_[static_cast<uint8_t>(text[begin])];
  int32_t found = -1;
  for (size_t i = begin + 1; node != 0; ++i) {
    if (nodes_[node].token >= 0) found = nodes_[node].token;
    if (i == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[i]);
    uint32_t next = 0;
    for (const Edge& edge : nodes_[node].edges) {
      if (edge.byte == byte) next = edge.node;
    }
    node = next;
  }
  return found;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].pattern.empty()) continue;
    (tokens_[i].normalized ? normalized_ : verbatim_).add(tokens_[i].pattern, static_cast<int32_t>(i));
  }
}

void AddedTokens::pass(const Finder& finder, std::string_view text, bool parse_special,
                       std::vector<Segment>& out) const {
  size_t done = 0;
  size_t i = finder.empty() ? text.size() : 0;
  while (i < text.size()) {
    const int32_t index = finder.longest(text, i);
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
