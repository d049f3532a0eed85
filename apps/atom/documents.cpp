#include "documents.h"

#include "base/error.h"
#include "base/mapped_file.h"

namespace atom::cli {

std::vector<int32_t> read_tokens(const DocumentOptions& options, const Checkpoint&,
                                 const text::Tokenizer& tokenizer, int64_t) {
  return tokenizer.encode(read_text_file(options.file));
}

}  // namespace atom::cli
