#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "checkpoint/gguf_file.h"

namespace atom {

/// What a GGUF file of architecture "llama" says about the model, as numbers that were checked.
struct GgufLlama {
  uint64_t layers = 0;
  uint64_t hidden = 0;
  uint64_t intermediate = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  uint64_t context = 0;
  uint64_t vocab = 0;
  double rms_eps = 0;
  double rope_theta = 0;
};

/// Reads them. Throws Error naming the key for another architecture, for what is missing or contradictory,
/// and for every "llama.*" setting that changes the mathematics in a way Atom does not know (scaled rotary
/// embedding, experts, sliding windows, ...): an unknown key is never ignored.
GgufLlama read_llama(const GgufFile& file);

/// The Hugging Face config.json of the same model.
nlohmann::ordered_json make_llama_config(const GgufFile& file, const GgufLlama& llama);

/// How a GGUF tensor appears under its Hugging Face name.
struct LlamaTensor {
  /// "model.layers.0.self_attn.q_proj.weight".
  std::string name;
  /// Zero, or the number of heads whose rows GGUF stores with the two halves of the rotary embedding
  /// interleaved: GGUF's row order is [head, head_dim / 2, 2], Hugging Face's is [head, 2, head_dim / 2].
  uint64_t interleaved_heads = 0;
};

/// Throws Error for a tensor that a Llama model does not have, or one beyond its layers.
LlamaTensor map_llama_tensor(const GgufFile& file, const GgufLlama& llama, const GgufTensor& tensor);

/// The row of GGUF's order that holds row `row` of Hugging Face's, for heads of `head_dim` rows.
inline int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim;
  const int64_t within = row % head_dim;
  const int64_t half = head_dim / 2;
  return head * head_dim + 2 * (within % half) + within / half;
}

}  // namespace atom
