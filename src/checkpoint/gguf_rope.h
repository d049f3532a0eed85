#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

#include "checkpoint/gguf_model.h"

namespace atom {

/// The tensor [head_dim / 2], F32, by whose elements the inverse frequencies of the rotary embedding are
/// divided.
inline constexpr std::string_view kRopeFactors = "rope_freqs.weight";

/// Hugging Face's `rope_scaling` of the model: of the keys `ARCH.rope.scaling.*` ({"rope_type": "linear"} and
/// {"rope_type": "yarn"}) and of the tensor rope_freqs.weight, which is {"rope_type": "llama3"} where its
/// values are those that Llama 3.1 and later scale by, and otherwise {"rope_type": "frequency_factors",
/// "factors": [head_dim / 2 numbers]}, which is Atom's own. Null: none. Throws Error naming the key or tensor
/// for what is malformed, contradictory or of another kind.
nlohmann::ordered_json make_rope_scaling(const GgufParts& parts, const GgufModel& model);

}  // namespace atom
