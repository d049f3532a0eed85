#include "text/detokenizer.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/tokenizer_data.h"
#include "text/unicode.h"

namespace atom::text {

std::string Utf8Assembler::push(std::string_view bytes) {
  held_ += bytes;
  const size_t held = incomplete_utf8_suffix(held_);
  const std::string ready = lossy_utf8(std::string_view(held_).substr(0, held_.size() - held));
  held_.erase(0, held_.size() - held);
  return ready;
}

std::string Utf8Assembler::finish() {
  const std::string rest = lossy_utf8(held_);
  held_.clear();
  return rest;
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      strip_start_(tokenizer.data_->decoder.strip.start) {}

std::string Detokenizer::push(int32_t id) {
  const Tokenizer::Data& data = *tokenizer_->data_;
  if (id < 0 || static_cast<size_t>(id) >= data.tokens.size()) return "";
  const Tokenizer::Data::Token& token = data.tokens[static_cast<size_t>(id)];
  if (!token.present || (skip_special_tokens_ && token.special)) return "";
  const bool first = first_;
  first_ = false;
  std::string text = !first && data.decoder.spaced ? assembler_.push(" ") : "";
  if (token.byte) {
    byte_run_ += token.bytes;
    return strip(std::move(text));
  }
  text += take_byte_run();
  if (first && data.first_token_differs && !token.added) {
    text += assembler_.push(data.decoder.apply(token.text, true));
  } else {
    std::string_view bytes = token.bytes;
    if (text.empty()) bytes.remove_prefix(take_mark(token.text, bytes));
    text += assembler_.push(bytes);
  }
  return strip(std::move(text));
}

std::string Detokenizer::finish() {
  std::string text = take_byte_run() + assembler_.finish();
  text = strip(std::move(text));
  // What is held at the end is what StripCharacters::stop removes.
  first_ = true;
  strip_start_ = tokenizer_->data_->decoder.strip.start;
  held_end_.clear();
  return text;
}

std::string Detokenizer::take_byte_run() {
  if (byte_run_.empty()) return "";
  std::string text;
  if (is_valid_utf8(byte_run_)) {
    text = assembler_.push(byte_run_);
  } else {
    for (size_t i = 0; i < byte_run_.size(); ++i) text += assembler_.push("\xEF\xBF\xBD");
  }
  byte_run_.clear();
  return text;
}

size_t Detokenizer::take_mark(std::string_view piece, std::string_view bytes) {
  const StripCharacters& what = tokenizer_->data_->decoder.strip;
  if (!what.marks || strip_start_ == 0 || !piece.starts_with(kSpaceMark) || !bytes.starts_with(what.content))
    return 0;
  --strip_start_;
  return what.content.size();
}

std::string Detokenizer::strip(std::string text) {
  const StripCharacters& what = tokenizer_->data_->decoder.strip;
  while (strip_start_ > 0 && !text.empty()) {
    if (!what.marks && text.starts_with(what.content)) {
      text.erase(0, what.content.size());
      --strip_start_;
    } else {
      strip_start_ = 0;
    }
  }
  if (what.stop == 0) return text;
  text.insert(0, held_end_);
  size_t end = text.size();
  for (size_t i = 0; i < what.stop && std::string_view(text).substr(0, end).ends_with(what.content); ++i)
    end -= what.content.size();
  held_end_ = text.substr(end);
  text.resize(end);
  return text;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  stops_.erase(std::remove(stops_.begin(), stops_.end(), ""), stops_.end());
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return "";
  held_ += text;
  size_t begin = std::string::npos;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found == std::string::npos) continue;
    const size_t found_end = found + stop.size();
    if (found_end > end || (found_end == end && found >= begin)) continue;
    begin = found;
    end = found_end;
  }
  if (begin != std::string::npos) {
    matched_ = held_.substr(begin, end - begin);
    std::string shown = held_.substr(0, begin);
    held_.clear();
    return shown;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).substr(held_.size() - length) == std::string_view(stop).substr(0, length)) {
        keep = length;
      }
    }
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

std::string StopMatcher::finish() {
  std::string rest = std::move(held_);
  held_.clear();
  return rest;
}

}  // namespace atom::text
