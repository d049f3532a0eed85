#include "text/pre_tokenizer.h"

#include <algorithm>

#include "base/byte_level.h"
#include "base/utf8.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

/// A stretch of a piece, and whether the pattern matched it.
struct Span {
  size_t begin;
  size_t end;
  bool matched;
};

/// Joins a matched span with the span before it, unless that is matched too.
std::vector<Span> merge_with_previous(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.matched && !previous && !out.empty()) {
      out.back().end = span.end;
    } else {
      out.push_back(span);
    }
    previous = span.matched;
  }
  return out;
}

std::vector<Span> merge_with_next(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (auto it = spans.rbegin(); it != spans.rend(); ++it) {
    if (it->matched && !previous && !out.empty()) {
      out.back().begin = it->begin;
    } else {
      out.push_back(*it);
    }
    previous = it->matched;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

/// Joins neighbours that are alike.
std::vector<Span> merge_runs(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.matched == previous && !out.empty()) {
      out.back().end = span.end;
    } else {
      out.push_back(span);
    }
    previous = span.matched;
  }
  return out;
}

void emit_spans(std::string_view piece, std::vector<Span> spans, SplitBehavior behavior, Pieces& out) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      spans.erase(std::remove_if(spans.begin(), spans.end(), [](const Span& s) { return s.matched; }),
                  spans.end());
      break;
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kMergedWithPrevious:
      spans = merge_with_previous(spans);
      break;
    case SplitBehavior::kMergedWithNext:
      spans = merge_with_next(spans);
      break;
    case SplitBehavior::kContiguous:
      spans = merge_runs(spans);
      break;
  }
  for (const Span& span : spans) {
    if (span.end > span.begin) out.list.push_back(piece.substr(span.begin, span.end - span.begin));
  }
}

Utf8Char char_at(std::string_view text, size_t i) {
  const auto byte = static_cast<unsigned char>(text[i]);
  if (byte < 0x80) return {byte, 1, true};
  return decode_utf8(text.substr(i));
}

constexpr uint8_t kWordClasses = CharTable::kLetter | CharTable::kNumber | CharTable::kSpace;

/// End of the run of characters from `i` on whose class is `kind`.
size_t run_end(const CharTable& table, std::string_view text, size_t i, uint8_t kind) {
  while (i < text.size()) {
    const Utf8Char c = char_at(text, i);
    if ((table.flags(c.code_point) & kWordClasses) != kind) break;
    i += c.length;
  }
  return i;
}

size_t contraction_length(std::string_view text, size_t i) {
  const std::string_view rest = text.substr(i + 1, 2);
  if (rest.empty()) return 0;
  if (rest[0] == 's' || rest[0] == 't' || rest[0] == 'm' || rest[0] == 'd') return 2;
  return rest == "re" || rest == "ve" || rest == "ll" ? 3 : 0;
}

/// End of the word of GPT-2's pattern that begins at `i`: its alternatives in order, written as a scanner
/// (about ten times as fast as the pattern; the tests hold the two together).
size_t word_end(const CharTable& table, std::string_view text, size_t i) {
  if (text[i] == '\'') {
    if (const size_t length = contraction_length(text, i)) return i + length;
  }
  const size_t start = text[i] == ' ' && i + 1 < text.size() ? i + 1 : i;
  const uint8_t kind = table.flags(char_at(text, start).code_point) & kWordClasses;
  if (kind != CharTable::kSpace) return run_end(table, text, start, kind);

  // White space: all of it at the end of the piece, else all but the last character, which starts the next
  // word.
  size_t last = i;
  size_t end = i;
  while (end < text.size()) {
    const Utf8Char c = char_at(text, end);
    if (!table.has(c.code_point, CharTable::kSpace)) return last > i ? last : end;
    last = end;
    end += c.length;
  }
  return end;
}

}  // namespace

void SplitStep::apply(std::string_view piece, Pieces& out) const {
  std::vector<Regex::Match> matches;
  pattern.find_all(piece, matches);
  if (behavior == SplitBehavior::kIsolated) {  // as most are
    size_t done = 0;
    const auto emit = [&](size_t end) {
      if (end > done) out.list.push_back(piece.substr(done, end - done));
      done = end;
    };
    for (const Regex::Match& match : matches) {
      emit(match.begin);
      emit(match.end);
    }
    return emit(piece.size());
  }
  std::vector<Span> spans;
  size_t done = 0;
  for (const Regex::Match& match : matches) {
    if (done != match.begin) spans.push_back({done, match.begin, invert});
    spans.push_back({match.begin, match.end, !invert});
    done = match.end;
  }
  if (done != piece.size()) spans.push_back({done, piece.size(), invert});
  emit_spans(piece, std::move(spans), behavior, out);
}

void ClassStep::apply(std::string_view piece, Pieces& out) const {
  const CharTable& table = CharTable::get();
  std::vector<Span> spans;
  size_t done = 0;
  for (size_t i = 0; i < piece.size();) {
    const Utf8Char c = char_at(piece, i);
    if (table.has(c.code_point, classes)) {
      if (done != i) spans.push_back({done, i, false});
      spans.push_back({i, i + c.length, true});
      done = i + c.length;
    }
    i += c.length;
  }
  if (done != piece.size()) spans.push_back({done, piece.size(), false});
  emit_spans(piece, std::move(spans), behavior, out);
}

void WordsStep::apply(std::string_view piece, Pieces& out) const {
  const CharTable& table = CharTable::get();
  const auto kind_of = [&](char32_t c) {
    const uint8_t flags = table.flags(c);
    return (flags & CharTable::kWord) != 0 ? 2 : (flags & CharTable::kSpace) != 0 ? 0 : 1;
  };
  size_t begin = 0;
  int kind = 0;
  const auto emit = [&](size_t end) {
    if (kind != 0) out.list.push_back(piece.substr(begin, end - begin));
    begin = end;
  };
  for (size_t i = 0; i < piece.size();) {
    const Utf8Char c = char_at(piece, i);
    const int next = kind_of(c.code_point);
    if (next != kind) emit(i);
    kind = next;
    i += c.length;
  }
  emit(piece.size());
}

void MetaspaceStep::apply(std::string_view piece, Pieces& out) const {
  const bool first = piece.data() == out.begin;
  std::string& text = out.owned.emplace_back();
  text.reserve(piece.size() + piece.size() / 2 + mark.size());
  const bool wanted = prepend == Prepend::kAlways || (prepend == Prepend::kFirst && first);
  if (wanted && piece[0] != ' ' && !piece.starts_with(mark)) text = mark;
  for (size_t i = 0; i < piece.size();) {
    const size_t space = std::min(piece.find(' ', i), piece.size());
    text.append(piece.substr(i, space - i));
    if (space < piece.size()) text += mark;
    i = space + 1;
  }
  if (first) out.begin = text.data();
  piece = text;
  size_t begin = 0;
  if (split) {
    for (size_t i = piece.find(mark, 1); i != std::string_view::npos; i = piece.find(mark, i + mark.size())) {
      out.list.push_back(piece.substr(begin, i - begin));
      begin = i;
    }
  }
  out.list.push_back(piece.substr(begin));
}

void DigitsStep::apply(std::string_view piece, Pieces& out) const {
  const CharTable& table = CharTable::get();
  size_t begin = 0;
  const auto emit = [&](size_t end) {
    if (end > begin) out.list.push_back(piece.substr(begin, end - begin));
    begin = end;
  };
  bool in_number = false;
  for (size_t i = 0; i < piece.size();) {
    const Utf8Char c = char_at(piece, i);
    const bool numeric = table.has(c.code_point, CharTable::kNumeric);
    if (numeric != in_number || (numeric && individual)) emit(i);
    in_number = numeric;
    i += c.length;
  }
  emit(piece.size());
}

void ByteLevelStep::apply(std::string_view piece, Pieces& out) const {
  if (add_prefix_space && piece[0] != ' ') {
    const bool first = piece.data() == out.begin;
    std::string& prefixed = out.owned.emplace_back(1, ' ');
    piece = prefixed.append(piece);
    if (first) out.begin = piece.data();
  }
  const auto emit = [&](std::string_view word) {
    if (write_alphabet) word = out.owned.emplace_back(byte_level_encode(word));
    out.list.push_back(word);
  };
  if (!use_regex) return emit(piece);
  const CharTable& table = CharTable::get();
  for (size_t i = 0; i < piece.size();) {
    const size_t end = word_end(table, piece, i);
    emit(piece.substr(i, end - i));
    i = end;
  }
}

void ReadAlphabetStep::apply(std::string_view piece, Pieces& out) const {
  out.list.push_back(out.owned.emplace_back(byte_level_decode(piece).value_or(std::string(piece))));
}

void pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_begin,
                  Pieces& pieces) {
  pieces.list.clear();
  pieces.owned.clear();
  pieces.begin = at_begin ? text.data() : nullptr;
  if (text.empty()) return;
  pieces.list.push_back(text);
  std::vector<std::string_view> input;
  for (const PreTokenizerStep& step : steps) {
    input.swap(pieces.list);
    pieces.list.clear();
    std::visit(
        [&](const auto& kind) {
          for (const std::string_view piece : input) kind.apply(piece, pieces);
        },
        step);
  }
}

}  // namespace atom::text
