#include "text/detokenizer.h"

#include <algorithm>

#include "base/utf8.h"
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

std::string Detokenizer::push(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->is_special(id)) return "";
  return assembler_.push(tokenizer_->token_bytes(id));
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
