#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/gguf_model.h"

namespace atom {

/// How a GGUF tensor appears under its Hugging Face name.
struct MappedTensor {
  /// "model.layers.0.self_attn.q_proj.weight"; empty for one that belongs to the configuration (rope_freqs).
  std::string name;
  /// Zero, or the number of heads whose rows GGUF stores with the two halves of the rotary embedding
  /// interleaved, as architecture "llama" does with q and k: GGUF's row order is [head, head_dim / 2, 2],
  /// Hugging Face's is [head, 2, head_dim / 2].
  uint64_t interleaved_heads = 0;
};

/// Throws Error naming `file` for a tensor that such a model does not have, or one beyond its layers.
MappedTensor map_gguf_tensor(const std::string& file, const GgufModel& model, const GgufTensor& tensor);

/// The row of GGUF's order that holds row `row` of Hugging Face's, for heads of `head_dim` rows.
inline int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim;
  const int64_t within = row % head_dim;
  const int64_t half = head_dim / 2;
  return head * head_dim + 2 * (within % half) + within / half;
}

}  // namespace atom
