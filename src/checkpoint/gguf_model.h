#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "checkpoint/gguf_parts.h"

namespace atom {

/// The architectures of GGUF (`general.architecture`) that Atom reads.
enum class GgufArchitecture : uint8_t { llama, qwen2, qwen3 };

/// What a GGUF file says about the model, as numbers that were checked.
struct GgufModel {
  GgufArchitecture architecture = GgufArchitecture::llama;
  /// As in the file: the prefix of its keys.
  std::string name;
  uint64_t layers = 0;
  uint64_t hidden = 0;
  uint64_t intermediate = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  uint64_t context = 0;
  uint64_t vocab = 0;
  /// 0: none.
  uint64_t sliding_window = 0;
  double rms_eps = 0;
  double rope_theta = 0;
};

/// Reads them. Throws Error naming the key for another architecture, for what is missing or contradictory,
/// and for every setting of the architecture that changes the mathematics in a way Atom does not know
/// (experts, soft caps, ...): an unknown key is never ignored.
GgufModel read_gguf_model(const GgufFile& metadata);

/// The Hugging Face config.json of the same model.
nlohmann::ordered_json make_gguf_config(const GgufParts& parts, const GgufModel& model);

}  // namespace atom
