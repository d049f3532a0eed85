#include "checkpoint/gguf_tensors.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

#include "base/error.h"
#include "checkpoint/gguf_rope.h"

namespace atom {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

constexpr std::array<NamePair, 3> kTopNames = {{{"token_embd.weight", "model.embed_tokens.weight"},
                                                {"output_norm.weight", "model.norm.weight"},
                                                {"output.weight", "lm_head.weight"}}};

constexpr std::array<NamePair, 11> kLayerNames = {{{"attn_norm", "input_layernorm"},
                                                   {"ffn_norm", "post_attention_layernorm"},
                                                   {"attn_q", "self_attn.q_proj"},
                                                   {"attn_k", "self_attn.k_proj"},
                                                   {"attn_v", "self_attn.v_proj"},
                                                   {"attn_output", "self_attn.o_proj"},
                                                   {"attn_q_norm", "self_attn.q_norm"},
                                                   {"attn_k_norm", "self_attn.k_norm"},
                                                   {"ffn_gate", "mlp.gate_proj"},
                                                   {"ffn_up", "mlp.up_proj"},
                                                   {"ffn_down", "mlp.down_proj"}}};

/// Rows of heads that are to be put in order must be whole rows of whole blocks.
void check_interleaved(const std::string& file, const GgufModel& model, const GgufTensor& tensor,
                       uint64_t heads) {
  const std::string label = printable(tensor.name);
  const auto rows = static_cast<uint64_t>(tensor.shape.front());
  require(rows == heads * model.head_dim, "{}: tensor \"{}\": expected {} heads of {} rows, found {} rows",
          file, label, heads, model.head_dim, rows);
  require(tensor.shape.size() <= 2, "{}: tensor \"{}\": expected at most 2 dimensions, found {}", file, label,
          tensor.shape.size());
  require(tensor.shape.size() == 2 || plain_dtype(tensor.type),
          "{}: tensor \"{}\": expected F32, F16 or BF16, found {}", file, label, layout_of(tensor.type).name);
}

}  // namespace

MappedTensor map_gguf_tensor(const std::string& file, const GgufModel& model, const GgufTensor& tensor) {
  if (tensor.name == kRopeFactors) return {};
  for (const NamePair& pair : kTopNames) {
    if (tensor.name == pair.gguf) return {std::string(pair.hugging_face), 0};
  }
  const auto unknown = [&]() {
    fail("{}: tensor \"{}\" does not belong to a supported model of architecture \"{}\"", file,
         printable(tensor.name), model.name);
  };
  // blk.<layer>.<part>.weight or .bias
  std::string_view rest = tensor.name;
  if (!rest.starts_with("blk.")) unknown();
  rest.remove_prefix(4);
  uint64_t layer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  const auto digits = static_cast<size_t>(end - rest.data());
  if (error != std::errc() || digits == rest.size() || rest[digits] != '.' || (digits > 1 && rest[0] == '0'))
    unknown();
  require(layer < model.layers, "{}: tensor \"{}\": the model has only {} layers ({}.block_count)", file,
          printable(tensor.name), model.layers, model.name);
  rest.remove_prefix(digits + 1);
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos) unknown();
  const std::string_view part = rest.substr(0, dot);
  const std::string_view kind = rest.substr(dot + 1);
  const auto* pair =
      std::find_if(kLayerNames.begin(), kLayerNames.end(), [&](const NamePair& p) { return p.gguf == part; });
  const bool norm = part.ends_with("_norm");
  if (pair == kLayerNames.end() || !(kind == "weight" || (kind == "bias" && !norm))) unknown();
  const bool head_norm = part == "attn_q_norm" || part == "attn_k_norm";
  if (head_norm && model.architecture != GgufArchitecture::qwen3) unknown();

  MappedTensor mapped;
  mapped.name = fmt::format("model.layers.{}.{}.{}", layer, pair->hugging_face, kind);
  if (model.architecture == GgufArchitecture::llama) {
    if (part == "attn_q") mapped.interleaved_heads = model.heads;
    if (part == "attn_k") mapped.interleaved_heads = model.kv_heads;
  }
  if (mapped.interleaved_heads != 0) check_interleaved(file, model, tensor, mapped.interleaved_heads);
  return mapped;
}

}  // namespace atom
