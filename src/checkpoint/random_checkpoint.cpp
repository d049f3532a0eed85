#include "checkpoint/random_checkpoint.h"

#include <cassert>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "tensor/half.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

constexpr float kStandardDeviation = 0.02f;
constexpr float kNormDeviation = 0.1f;
constexpr uint64_t kLargeOneIn = 128;
constexpr float kLargeFactor = 8.0f;
/// Elements that one thread makes at a time.
constexpr int64_t kGrain = 1 << 16;

struct Shape {
  const char* name;
  int64_t hidden, intermediate, layers, heads, kv_heads, vocab, positions;
  double rope_theta;
  int64_t bos, eos;
  bool tied_embeddings;
};

constexpr Shape kShapes[] = {
    {"llama-2-7b", 4096, 11008, 32, 32, 32, 32000, 4096, 10000.0, 1, 2, false},
    {"llama-2-13b", 5120, 13824, 40, 40, 40, 32000, 4096, 10000.0, 1, 2, false},
    {"llama-2-70b", 8192, 28672, 80, 64, 8, 32000, 4096, 10000.0, 1, 2, false},
    {"llama-3-8b", 4096, 14336, 32, 32, 8, 128256, 8192, 500000.0, 128000, 128001, false},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 49152, 8192, 100000.0, 1, 2, true},
};

const Shape& shape_named(const std::string& name) {
  for (const Shape& shape : kShapes) {
    if (name == shape.name) return shape;
  }
  throw UsageError(fmt::format("unknown shape of a random model '{}' ({})", printable(name),
                               fmt::join(RandomCheckpoint::shapes(), ", ")));
}

Json config_of(const Shape& shape) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"hidden_size", shape.hidden},
          {"intermediate_size", shape.intermediate},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"vocab_size", shape.vocab},
          {"max_position_embeddings", shape.positions},
          {"rms_norm_eps", 1e-05},
          {"rope_theta", shape.rope_theta},
          {"tie_word_embeddings", shape.tied_embeddings},
          {"bos_token_id", shape.bos},
          {"eos_token_id", shape.eos},
          {"torch_dtype", "float16"}};
}

/// The key of a tensor's stream: FNV-1a of its name, mixed with the seed.
uint64_t key_of(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return random_word(hash, seed);
}

/// About normal, with mean 0 and variance 1, within +-4.9: a sum of eight uniform numbers of 16 bits.
float normal(uint64_t key, int64_t i) {
  int32_t sum = 0;
  for (const uint64_t part : {uint64_t{0}, uint64_t{1}}) {
    const uint64_t bits = random_word(key, 2 * static_cast<uint64_t>(i) + part);
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int32_t>((bits >> shift) & 0xFFFF);
  }
  // sqrt(8 / 12) * 2^16 is the sum's standard deviation; twice the sum keeps its mean an integer.
  constexpr float kInverseDeviation = 1.0f / (2.0f * 53509.9f);
  return static_cast<float>(2 * sum - 8 * 65535) * kInverseDeviation;
}

/// 1, or for a few rows that `key` decides kLargeFactor.
float magnitude(uint64_t key, int64_t row) {
  return random_word(~key, static_cast<uint64_t>(row)) % kLargeOneIn == 0 ? kLargeFactor : 1.0f;
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(const std::string& shape_name, uint64_t seed, ThreadPool* pool)
    : Checkpoint(shape_name), seed_(seed), pool_(pool), tokenizer_config_(Json::object()) {
  const Shape& shape = shape_named(shape_name);
  config_ = config_of(shape);
  const int64_t kv_size = shape.hidden / shape.heads * shape.kv_heads;
  add("model.embed_tokens.weight", {shape.vocab, shape.hidden}, Kind::matrix);
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add(prefix + "input_layernorm.weight", {shape.hidden}, Kind::norm);
    add(prefix + "self_attn.q_proj.weight", {shape.hidden, shape.hidden}, Kind::matrix);
    add(prefix + "self_attn.k_proj.weight", {kv_size, shape.hidden}, Kind::matrix);
    add(prefix + "self_attn.v_proj.weight", {kv_size, shape.hidden}, Kind::matrix_with_large_rows);
    add(prefix + "self_attn.o_proj.weight", {shape.hidden, shape.hidden}, Kind::matrix);
    add(prefix + "post_attention_layernorm.weight", {shape.hidden}, Kind::norm);
    add(prefix + "mlp.gate_proj.weight", {shape.intermediate, shape.hidden}, Kind::matrix);
    add(prefix + "mlp.up_proj.weight", {shape.intermediate, shape.hidden}, Kind::matrix_with_large_rows);
    add(prefix + "mlp.down_proj.weight", {shape.hidden, shape.intermediate}, Kind::matrix);
  }
  add("model.norm.weight", {shape.hidden}, Kind::norm);
  if (!shape.tied_embeddings) add("lm_head.weight", {shape.vocab, shape.hidden}, Kind::matrix);
}

std::vector<std::string> RandomCheckpoint::shapes() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

void RandomCheckpoint::add(const std::string& name, std::vector<int64_t> shape, Kind kind) {
  index_.emplace(name, entries_.size());
  entries_.push_back({name, std::move(shape), kind});
}

const RandomCheckpoint::Entry& RandomCheckpoint::find(const std::string& name) const {
  const auto it = index_.find(name);
  require(it != index_.end(), "{}: tensor {}: missing", path().string(), printable(name));
  return entries_[it->second];
}

std::vector<std::string> RandomCheckpoint::names() const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.name);
  return names;
}

TensorInfo RandomCheckpoint::info(const std::string& name) const {
  const Entry& entry = find(name);
  uint64_t bytes = sizeof(uint16_t);
  for (const int64_t size : entry.shape) bytes *= static_cast<uint64_t>(size);
  return {"F16", entry.shape, bytes, DType::f16};
}

Tensor RandomCheckpoint::load(const std::string& name) const {
  const Entry& entry = find(name);
  const uint64_t key = key_of(seed_, name);
  const int64_t cols = entry.shape.back();
  const auto storage = std::make_shared<Buffer<uint16_t>>(info(name).bytes / sizeof(uint16_t));
  uint16_t* out = storage->data();
  const auto fill = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float value = normal(key, i);
      if (entry.kind == Kind::norm) {
        value = (1.0f + kNormDeviation * value) * magnitude(key, i);
      } else {
        value *= kStandardDeviation;
        if (entry.kind == Kind::matrix_with_large_rows) value *= magnitude(key, i / cols);
      }
      out[i] = float_to_half(value);
    }
  };
  const auto count = static_cast<int64_t>(storage->size());
  if (pool_ != nullptr) {
    const std::lock_guard lock(mutex_);
    pool_->parallel_for(count, kGrain, fill);
  } else {
    fill(0, count, 0);
  }
  return {DType::f16, entry.shape, std::as_bytes(storage->span()), storage};
}

void RandomCheckpoint::read_float(const std::string& name, std::span<float> out) const {
  const Tensor tensor = load(name);
  require(static_cast<int64_t>(out.size()) == tensor.elements(),
          "{}: tensor {}: expected room for {} elements, found {}", path().string(), name, tensor.elements(),
          out.size());
  to_float(tensor, out);
}

const Json& RandomCheckpoint::tokenizer_json() const {
  fail("{}: a random model has no tokenizer", path().string());
}

}  // namespace atom
