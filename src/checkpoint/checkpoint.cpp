#include "checkpoint/checkpoint.h"

#include "base/error.h"
#include "checkpoint/gguf_checkpoint.h"
#include "checkpoint/hf_checkpoint.h"
#include "checkpoint/hf_int4_checkpoint.h"

namespace atom {

std::unique_ptr<Checkpoint> Checkpoint::open(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  require(status.type() != std::filesystem::file_type::not_found, "{}: no such file or directory",
          path.string());
  require(std::filesystem::status_known(status), "{}: cannot open: {}", path.string(), error.message());
  if (!std::filesystem::is_directory(status)) return std::make_unique<GgufCheckpoint>(path);
  auto checkpoint = std::make_unique<HfCheckpoint>(path);
  if (!HfInt4Config::is_in(checkpoint->config())) return checkpoint;
  return std::make_unique<HfInt4Checkpoint>(std::move(checkpoint));
}

}  // namespace atom
