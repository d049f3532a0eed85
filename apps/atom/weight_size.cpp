#include "weight_size.h"

#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace atom::cli {
namespace {

namespace fs = std::filesystem;

int64_t size_of_file(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  require(!error, "{}: cannot read its size: {}", path.string(), error.message());
  return static_cast<int64_t>(size);
}

}  // namespace

double WeightSize::bits_per_weight() const {
  return 8.0 * static_cast<double>(tensor_bytes) / static_cast<double>(weights);
}

WeightSize weight_size(const Checkpoint& checkpoint, const Model& model) {
  WeightSize size;
  size.weights = model.weight_count();
  for (const auto& name : checkpoint.names()) {
    // A file may repeat the embedding as an lm_head; the model has it once.
    if (name == "lm_head.weight" && model.config().tied_embeddings) continue;
    size.tensor_bytes += static_cast<int64_t>(checkpoint.info(name).bytes);
  }
  const auto files = checkpoint.files();
  for (const fs::path& file : files) size.file_bytes += size_of_file(file);
  if (files.empty()) size.file_bytes = size.tensor_bytes;
  return size;
}

}  // namespace atom::cli
