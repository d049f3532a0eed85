#include "documents.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "conversation.h"
#include "text/corpus.h"

namespace atom::cli {
namespace {

constexpr size_t kAll = std::numeric_limits<size_t>::max();

size_t count_of(int64_t number) {
  return number < 0 ? kAll : static_cast<size_t>(number);
}

}  // namespace

std::vector<int32_t> read_tokens(const DocumentOptions& options, const Checkpoint& checkpoint,
                                 const text::Tokenizer& tokenizer, int64_t enough) {
  std::optional<text::ChatTemplate> chat_template;
  if (has_chat_template(checkpoint)) chat_template.emplace(load_chat_template(checkpoint));
  const Json variables = template_variables(checkpoint);
  const size_t most = count_of(options.limit.value_or(-1));
  const bool bounded = enough < INT64_MAX;

  // A file may hold far more than is needed: more and more of it is read, until it suffices or ends.
  constexpr size_t kFirst = 512;
  constexpr size_t kGrowth = 8;
  size_t limit = bounded ? std::min(kFirst, most) : most;
  while (true) {
    const auto corpus = text::read_corpus(options.file, {static_cast<size_t>(options.skip), limit});
    std::vector<int32_t> tokens =
        text::tokenize_corpus(corpus.documents, tokenizer, chat_template ? &*chat_template : nullptr,
                              variables, bounded ? static_cast<size_t>(enough) : kAll);
    const bool sufficient = bounded && static_cast<int64_t>(tokens.size()) >= enough;
    if (sufficient || limit >= most || corpus.complete) return tokens;
    limit = limit > most / kGrowth ? most : limit * kGrowth;
  }
}

}  // namespace atom::cli
