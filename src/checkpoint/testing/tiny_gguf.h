#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/utf8.h"
#include "tensor/half.h"

namespace atom::test_support {

/// Writes GGUF files for tests: whatever is added, valid or not, goes into the file as it is.
class GgufBuilder {
 public:
  GgufBuilder& version(uint32_t value) { return version_ = value, *this; }
  /// Sets the alignment of tensors; say so in the metadata too (general.alignment) unless it is 32.
  GgufBuilder& alignment(uint64_t value) { return alignment_ = value, *this; }

  GgufBuilder& add_u32(std::string_view key, uint32_t value) { return add(key, 4, bytes_of(value)); }
  GgufBuilder& add_u64(std::string_view key, uint64_t value) { return add(key, 10, bytes_of(value)); }
  GgufBuilder& add_f32(std::string_view key, float value) { return add(key, 6, bytes_of(value)); }
  GgufBuilder& add_bool(std::string_view key, bool value) {
    return add(key, 7, std::string(1, value ? '\1' : '\0'));
  }
  GgufBuilder& add_string(std::string_view key, std::string_view value) {
    return add(key, 8, string_of(value));
  }
  GgufBuilder& add_strings(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = bytes_of(uint32_t{8}) + bytes_of<uint64_t>(values.size());
    for (const std::string& value : values) bytes += string_of(value);
    return add(key, 9, bytes);
  }
  GgufBuilder& add_ints(std::string_view key, const std::vector<int32_t>& values) {
    std::string bytes = bytes_of(uint32_t{5}) + bytes_of<uint64_t>(values.size());
    for (const int32_t value : values) bytes += bytes_of(value);
    return add(key, 9, bytes);
  }
  /// A value of the type with this number, from its bytes in the file. Replaces an earlier one of the same
  /// key.
  GgufBuilder& add(std::string_view key, uint32_t type, std::string_view bytes) {
    remove(key);
    metadata_.emplace_back(key, bytes_of(type) + std::string(bytes));
    return *this;
  }
  GgufBuilder& remove(std::string_view key) {
    metadata_.erase(
        std::remove_if(metadata_.begin(), metadata_.end(), [&](const auto& m) { return m.first == key; }),
        metadata_.end());
    return *this;
  }

  /// `shape` is row-major; `type` is the number in the file (0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0, 30 BF16).
  GgufBuilder& add_tensor(std::string_view name, const std::vector<int64_t>& shape, uint32_t type,
                          std::string bytes) {
    const uint64_t size = bytes.size();
    tensors_.push_back({std::string(name), shape, type, std::move(bytes), size});
    return *this;
  }
  /// A tensor whose `size` bytes are never made: for files that consist of `header()` and a hole.
  GgufBuilder& add_hollow_tensor(std::string_view name, const std::vector<int64_t>& shape, uint32_t type,
                                 uint64_t size) {
    tensors_.push_back({std::string(name), shape, type, "", size});
    return *this;
  }

  /// The file without the tensors' bytes, whose offsets are those for tensors of the sizes added.
  std::string header() const {
    std::string out = "GGUF";
    out += bytes_of(version_) + bytes_of<uint64_t>(tensors_.size()) + bytes_of<uint64_t>(metadata_.size());
    for (const auto& [key, value] : metadata_) out += string_of(key) + value;
    uint64_t offset = 0;
    for (const TensorEntry& tensor : tensors_) {
      out += string_of(tensor.name) + bytes_of(static_cast<uint32_t>(tensor.shape.size()));
      for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) out += bytes_of(*size);
      out += bytes_of(tensor.type) + bytes_of(offset);
      offset = padded(offset + tensor.size);
    }
    return out;
  }

  /// The size of the whole file.
  uint64_t file_size() const {
    uint64_t size = header().size();
    for (const TensorEntry& tensor : tensors_) size = padded(size) + tensor.size;
    return size;
  }

  std::string build() const {
    std::string out = header();
    for (const TensorEntry& tensor : tensors_) {
      out.resize(padded(out.size()), '\0');
      out += tensor.bytes;
    }
    return out;
  }

  template <class T>
  static std::string bytes_of(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string string_of(std::string_view text) {
    return bytes_of<uint64_t>(text.size()) + std::string(text);
  }

 private:
  struct TensorEntry {
    std::string name;
    std::vector<int64_t> shape;
    uint32_t type;
    std::string bytes;
    uint64_t size;
  };

  uint64_t padded(uint64_t size) const { return (size + alignment_ - 1) / alignment_ * alignment_; }

  uint32_t version_ = 3;
  uint64_t alignment_ = 32;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<TensorEntry> tensors_;
};

/// `values` in the GGUF type with this number (0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0, 30 BF16). For the block
/// types their number must be a multiple of 32.
inline std::string encode_values(const std::vector<float>& values, uint32_t type) {
  std::string out;
  const auto put = [&](auto value) { out += GgufBuilder::bytes_of(value); };
  if (type == 0) {
    for (const float value : values) put(value);
  } else if (type == 1 || type == 30) {
    for (const float value : values) put(type == 1 ? float_to_half(value) : float_to_bfloat16(value));
  } else {
    for (size_t begin = 0; begin < values.size(); begin += 32) {
      const float* x = values.data() + begin;
      const auto [low, high] = std::minmax_element(x, x + 32);
      const float magnitude = std::max(std::fabs(*low), std::fabs(*high));
      const float levels = type == 3 ? 15.0f : type == 2 ? 7.0f : 127.0f;
      const float offset = type == 3 ? *low : 0.0f;
      const float scale = (type == 3 ? *high - *low : magnitude) / levels;
      const auto quantize = [&](float v, int first, int last) {
        const int q = scale == 0 ? 0 : static_cast<int>(std::lrint((v - offset) / scale));
        return std::clamp(q, first, last);
      };
      put(float_to_half(scale));
      if (type == 3) put(float_to_half(offset));
      for (int i = 0; i < 16 && type != 8; ++i) {
        const int bias = type == 2 ? 8 : 0;
        const int low_nibble = quantize(x[i], -bias, 15 - bias) + bias;
        const int high_nibble = quantize(x[i + 16], -bias, 15 - bias) + bias;
        put(static_cast<uint8_t>(low_nibble | high_nibble << 4));
      }
      for (int i = 0; i < 32 && type == 8; ++i) put(static_cast<int8_t>(quantize(x[i], -127, 127)));
    }
  }
  return out;
}

/// The shape of a tiny random Llama, or of another architecture of the same tensors.
struct TinyLlama {
  std::string architecture = "llama";
  int64_t hidden = 64;
  int64_t intermediate = 96;
  int64_t layers = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  /// 0: hidden / heads.
  int64_t head_dim = 0;
  /// At least the tokenizer's own 3 special tokens, 256 bytes and 8 merges (267); the rest are unused tokens.
  int64_t vocab = 288;
  int64_t context = 256;
  float rope_theta = 10000.0f;
  bool tied = true;
  /// GGUF type of the matrices; norms are F32. Block types need hidden, intermediate and heads * head_dim to
  /// be multiples of 32.
  uint32_t type = 0;
  uint64_t seed = 1;

  int64_t head_size() const { return head_dim != 0 ? head_dim : hidden / heads; }
};

/// A tensor of the tiny model under its GGUF name, values in Hugging Face's row order.
struct TinyTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

/// The tensors, random and about as large as in a trained model, the same for the same seed.
inline std::vector<TinyTensor> make_tiny_tensors(const TinyLlama& tiny) {
  Random random(tiny.seed);
  std::vector<TinyTensor> tensors;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    TinyTensor tensor{name, {rows, cols}, std::vector<float>(static_cast<size_t>(rows * cols))};
    const double scale = 2 / std::sqrt(static_cast<double>(cols));
    for (float& value : tensor.values) value = static_cast<float>((random.uniform() * 2 - 1) * scale);
    tensors.push_back(std::move(tensor));
  };
  const auto norm = [&](const std::string& name) {
    TinyTensor tensor{name, {tiny.hidden}, std::vector<float>(static_cast<size_t>(tiny.hidden))};
    for (float& value : tensor.values) value = static_cast<float>(0.5 + random.uniform());
    tensors.push_back(std::move(tensor));
  };
  const int64_t d = tiny.head_size();
  matrix("token_embd.weight", tiny.vocab, tiny.hidden);
  for (int64_t layer = 0; layer < tiny.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    norm(prefix + "attn_norm.weight");
    matrix(prefix + "attn_q.weight", tiny.heads * d, tiny.hidden);
    matrix(prefix + "attn_k.weight", tiny.kv_heads * d, tiny.hidden);
    matrix(prefix + "attn_v.weight", tiny.kv_heads * d, tiny.hidden);
    matrix(prefix + "attn_output.weight", tiny.hidden, tiny.heads * d);
    norm(prefix + "ffn_norm.weight");
    matrix(prefix + "ffn_gate.weight", tiny.intermediate, tiny.hidden);
    matrix(prefix + "ffn_up.weight", tiny.intermediate, tiny.hidden);
    matrix(prefix + "ffn_down.weight", tiny.hidden, tiny.intermediate);
  }
  norm("output_norm.weight");
  if (!tiny.tied) matrix("output.weight", tiny.vocab, tiny.hidden);
  return tensors;
}

/// Metadata and a byte-level tokenizer ("smollm", 8 merges, ChatML template) without tensors.
inline GgufBuilder make_tiny_metadata(const TinyLlama& tiny) {
  const auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
  const auto key = [&](const char* name) { return tiny.architecture + "." + name; };
  GgufBuilder builder;
  builder.add_string("general.architecture", tiny.architecture)
      .add_string("general.name", "tiny")
      .add_u32(key("block_count"), u32(tiny.layers))
      .add_u32(key("context_length"), u32(tiny.context))
      .add_u32(key("embedding_length"), u32(tiny.hidden))
      .add_u32(key("feed_forward_length"), u32(tiny.intermediate))
      .add_u32(key("attention.head_count"), u32(tiny.heads))
      .add_u32(key("attention.head_count_kv"), u32(tiny.kv_heads))
      .add_u32(key("attention.key_length"), u32(tiny.head_size()))
      .add_u32(key("attention.value_length"), u32(tiny.head_size()))
      .add_u32(key("rope.dimension_count"), u32(tiny.head_size()))
      .add_f32(key("rope.freq_base"), tiny.rope_theta)
      .add_f32(key("attention.layer_norm_rms_epsilon"), 1e-5f)
      .add_u32(key("vocab_size"), u32(tiny.vocab));

  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<int32_t> types = {3, 3, 3};
  // GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and following.
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string token;
    append_utf8(token, printable ? byte : next++);
    tokens.push_back(token);
  }
  const std::vector<std::string> merges = {"Ġ t", "h e", "i n", "e r", "Ġt he", "o n", "Ġ a", "in g"};
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  types.resize(tokens.size(), 1);
  while (static_cast<int64_t>(tokens.size()) < tiny.vocab)
    tokens.push_back("<|unused_" + std::to_string(tokens.size()) + "|>");
  types.resize(tokens.size(), 5);
  builder.add_string("tokenizer.ggml.model", "gpt2")
      .add_string("tokenizer.ggml.pre", "smollm")
      .add_strings("tokenizer.ggml.tokens", tokens)
      .add_ints("tokenizer.ggml.token_type", types)
      .add_strings("tokenizer.ggml.merges", merges)
      .add_u32("tokenizer.ggml.bos_token_id", 1)
      .add_u32("tokenizer.ggml.eos_token_id", 2)
      .add_u32("tokenizer.ggml.unknown_token_id", 0)
      .add_u32("tokenizer.ggml.padding_token_id", 2)
      .add_bool("tokenizer.ggml.add_bos_token", false)
      .add_string(
          "tokenizer.chat_template",
          "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
          "{% endif %}");
  return builder;
}

/// Metadata, tokenizer and tensors; rows of a Llama's attn_q and attn_k go into GGUF's order.
inline GgufBuilder make_tiny_builder(const TinyLlama& tiny) {
  GgufBuilder builder = make_tiny_metadata(tiny);
  const auto d = static_cast<size_t>(tiny.head_size());
  for (const TinyTensor& tensor : make_tiny_tensors(tiny)) {
    const auto part = [&](const char* name) { return tensor.name.find(name) != std::string::npos; };
    std::vector<float> values = tensor.values;
    if (tiny.architecture == "llama" && (part("attn_q.") || part("attn_k."))) {
      const auto cols = static_cast<size_t>(tensor.shape[1]);
      for (size_t row = 0; row < static_cast<size_t>(tensor.shape[0]); ++row) {
        const size_t half = row % d / (d / 2);
        const size_t to = row / d * d + row % (d / 2) * 2 + half;
        const auto from = tensor.values.begin() + static_cast<std::ptrdiff_t>(row * cols);
        std::copy_n(from, cols, values.begin() + static_cast<std::ptrdiff_t>(to * cols));
      }
    }
    const uint32_t type = tensor.shape.size() == 1 ? 0 : tiny.type;
    builder.add_tensor(tensor.name, tensor.shape, type, encode_values(values, type));
  }
  return builder;
}

/// A whole GGUF file of a tiny random Llama.
inline std::string make_tiny_gguf(const TinyLlama& tiny = {}) {
  return make_tiny_builder(tiny).build();
}

}  // namespace atom::test_support
