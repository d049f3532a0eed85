#include "text/tokenizer.h"

#include "base/log.h"
#include "text/detokenizer.h"
#include "text/tokenizer_data.h"
#include "text/unicode.h"

namespace atom::text {

Tokenizer::Tokenizer(std::unique_ptr<Data> data) : data_(std::move(data)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::string replaced;
  if (!is_valid_utf8(text)) {
    replaced = lossy_utf8(text);
    text = replaced;
  }
  std::vector<int32_t> out;
  out.reserve(text.size() / 4 + data_->prefix.size() + data_->suffix.size());
  if (options.add_special_tokens) out.insert(out.end(), data_->prefix.begin(), data_->prefix.end());

  std::vector<Segment> segments;
  std::vector<Segment> parts;
  std::string normalized;
  Pieces pieces;
  Bpe::Scratch scratch;
  data_->added.split_verbatim(text, options.parse_special, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      out.push_back(segment.id);
      continue;
    }
    const bool at_begin = segment.text.data() == text.data();
    std::string_view part_text = segment.text;
    if (!data_->normalizer.empty()) {
      normalized =
          normalize(data_->normalizer, segment.text, at_begin ? TextPart::kBegin : TextPart::kBehind);
      part_text = normalized;
    }
    data_->added.split_normalized(part_text, options.parse_special, parts);
    for (const Segment& part : parts) {
      if (part.id >= 0) {
        out.push_back(part.id);
        continue;
      }
      pre_tokenize(data_->steps, part.text, at_begin && part.text.data() == part_text.data(), pieces);
      for (const std::string_view word : pieces.list) data_->model->encode(word, scratch, out);
    }
  }

  if (options.add_special_tokens) out.insert(out.end(), data_->suffix.begin(), data_->suffix.end());
  if (scratch.dropped && !data_->warned_of_dropped.exchange(true)) {
    spdlog::warn("{}: the text has something that the vocabulary has no token for; it is dropped",
                 data_->source);
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string out;
  for (const int32_t id : ids) out += detokenizer.push(id);
  return out += detokenizer.finish();
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(data_->tokens[static_cast<size_t>(id)].bytes) : "";
}

std::string_view Tokenizer::token_text(int32_t id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(data_->tokens[static_cast<size_t>(id)].text) : "";
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(data_->tokens.size());
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const auto it = data_->ids.find(std::string(token));
  if (it == data_->ids.end()) return std::nullopt;
  return it->second;
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && data_->tokens[static_cast<size_t>(id)].special;
}

}  // namespace atom::text
