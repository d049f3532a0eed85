#include "checkpoint/gguf_checkpoint.h"

#include <bit>
#include <ctime>
#include <fstream>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/json.h"
#include "checkpoint/testing/oracle.h"
#include "checkpoint/testing/tiny_gguf.h"
#include "tensor/half.h"

namespace atom {
namespace {

using test_support::GgufBuilder;
using test_support::make_tiny_builder;
using test_support::make_tiny_gguf;
using test_support::TempDir;
using test_support::TinyLlama;

std::vector<float> read(const Checkpoint& checkpoint, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(checkpoint.load(name).elements()));
  checkpoint.read_float(name, values);
  return values;
}

TEST(GgufCheckpoint, GivesTensorsInHuggingFaceRowOrder) {
  for (const uint32_t type : {0u, 1u, 30u}) {
    TinyLlama tiny;
    tiny.type = type;
    tiny.head_dim = 20;
    const TempDir dir;
    const auto checkpoint = Checkpoint::open(dir.write("tiny.gguf", make_tiny_gguf(tiny)));
    EXPECT_EQ(checkpoint->format(), "gguf");
    const auto tensors = make_tiny_tensors(tiny);
    const auto names = checkpoint->names();
    ASSERT_EQ(names.size(), tensors.size());
    for (size_t i = 0; i < names.size(); ++i) {
      EXPECT_EQ(checkpoint->info(names[i]).shape, tensors[i].shape);
      std::vector<float> expected = tensors[i].values;
      const bool plain = checkpoint->info(names[i]).type == "F32";
      for (float& value : expected) {
        if (!plain && type == 1) value = round_to_half(value);
        if (!plain && type == 30) value = bfloat16_to_float(float_to_bfloat16(value));
      }
      EXPECT_EQ(read(*checkpoint, names[i]), expected) << names[i];
      const Tensor tensor = checkpoint->load(names[i]);
      EXPECT_EQ(tensor.shape, tensors[i].shape);
      EXPECT_EQ(name_of(tensor.dtype), checkpoint->info(names[i]).type);
      std::vector<float> loaded(expected.size());
      to_float(tensor, loaded);
      EXPECT_EQ(loaded, expected) << names[i];
    }
  }
}

TEST(GgufCheckpoint, ReordersBlockRowsAndBiases) {
  TinyLlama tiny;
  tiny.type = 8;
  tiny.layers = 1;
  GgufBuilder builder = make_tiny_builder(tiny);
  std::vector<float> bias(64);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  builder.add_tensor("blk.0.attn_q.bias", {64}, 0, test_support::encode_values(bias, 0));
  const std::string bytes = builder.build();
  const GgufCheckpoint checkpoint(std::as_bytes(std::span(bytes)), "tiny.gguf");
  EXPECT_EQ(checkpoint.config()["attention_bias"], true);
  const auto found = read(checkpoint, "model.layers.0.self_attn.q_proj.bias");
  for (size_t row = 0; row < 64; ++row)
    EXPECT_EQ(found[row], static_cast<float>(interleaved_row(static_cast<int64_t>(row), 16)));

  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const Tensor loaded = checkpoint.load(q);
  EXPECT_EQ(loaded.dtype, DType::f32);
  EXPECT_EQ(checkpoint.info(q).type, "Q8_0");
  EXPECT_EQ(checkpoint.info(q).bytes, 64u * 2 * 34);
  const auto values = read(checkpoint, q);
  EXPECT_EQ(std::memcmp(loaded.bytes.data(), values.data(), loaded.bytes.size()), 0);
  const auto original = make_tiny_tensors(tiny)[2].values;
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], original[i], 0.002) << i;
}

TEST(GgufCheckpoint, NamesFileAndTensorInErrors) {
  const std::string bytes = make_tiny_gguf();
  const GgufCheckpoint checkpoint(std::as_bytes(std::span(bytes)), "tiny.gguf");
  const auto error_of = [&](const auto& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of([&] { checkpoint.load("lm_head.weight"); }),
            "tiny.gguf: tensor \"lm_head.weight\" is missing");
  std::vector<float> small(3);
  EXPECT_EQ(error_of([&] { checkpoint.read_float("model.norm.weight", small); }),
            "tiny.gguf: tensor \"model.norm.weight\": expected 3 values, it has 64");
  EXPECT_FALSE(checkpoint.contains("output_norm.weight"));
  EXPECT_EQ(error_of([&] { Checkpoint::open("/no/such/file"); }), "/no/such/file: no such file or directory");
}

TEST(GgufCheckpoint, MisalignedTensorsAreCopied) {
  GgufBuilder builder = test_support::make_tiny_metadata({});
  builder.alignment(1).add_u32("general.alignment", 1);
  builder.add_tensor("blk.0.attn_norm.weight", {1}, 1, "zz").add_tensor("output_norm.weight", {1}, 0, "wxyz");
  builder.add_tensor("blk.1.attn_norm.weight", {3}, 1, "ABCDEF")
      .add_tensor("token_embd.weight", {1}, 0, "abcd");
  for (const char* pad : {"", "1", "12", "123"}) {
    builder.add_string("general.name", pad);
    const std::string bytes = builder.build();
    const GgufCheckpoint checkpoint(std::as_bytes(std::span(bytes)), "tiny.gguf");
    const Tensor tensor = checkpoint.load("model.embed_tokens.weight");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 4, 0u);
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), "abcd", 4), 0);
  }
}

TEST(GgufCheckpoint, TensorsOutliveTheCheckpointAndThreadsShareIt) {
  const TempDir dir;
  const auto path = dir.write("tiny.gguf", make_tiny_gguf());
  Tensor tensor;
  {
    const auto checkpoint = Checkpoint::open(path);
    tensor = checkpoint->load("model.norm.weight");
    std::vector<std::thread> threads;
    std::vector<const void*> documents(4);
    for (size_t i = 0; i < documents.size(); ++i) {
      threads.emplace_back([&, i] {
        documents[i] = &checkpoint->tokenizer_json();
        for (const std::string& name : checkpoint->names()) read(*checkpoint, name);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const void* document : documents) EXPECT_EQ(document, documents[0]);
  }
  std::filesystem::remove(path);
  std::vector<float> values(64);
  to_float(tensor, values);
  EXPECT_EQ(values, make_tiny_tensors(TinyLlama()).back().values);
}

TEST(GgufCheckpoint, RealModelEqualsPackageGguf) {
  const std::string model = test_support::test_environment("ATOM_TEST_MODEL");
  if (model.empty()) GTEST_SKIP() << "ATOM_TEST_MODEL is not set";
  const auto checkpoint = Checkpoint::open(model);
  const auto golden = read_json_file(test_support::source_root() / "tests/golden/checkpoint_smollm2.json");
  const auto names = checkpoint->names();
  ASSERT_EQ(names.size(), golden.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& expected = golden[i];
    ASSERT_EQ(names[i], expected["name"].get<std::string>());
    const TensorInfo info = checkpoint->info(names[i]);
    EXPECT_EQ(info.type, expected["type"].get<std::string>());
    EXPECT_EQ(nlohmann::ordered_json(info.shape), expected["shape"]);
    const auto values = read(*checkpoint, names[i]);
    uint64_t checksum = 0;
    for (size_t j = 0; j < values.size(); ++j) checksum += std::bit_cast<uint32_t>(values[j]) * (2 * j + 1);
    EXPECT_EQ(fmt::format("{:016x}", checksum), expected["checksum"].get<std::string>()) << names[i];
  }
}

/// Resident bytes of this process.
int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0;
  int64_t resident = 0;
  in >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(GgufCheckpoint, OpensALargeFileWithoutReadingIt) {
  // The shape of a 7B model in F16: 13.5 GB, none of which is on the disk.
  constexpr int64_t kHidden = 4096;
  constexpr int64_t kIntermediate = 11008;
  constexpr int64_t kVocab = 32000;
  TinyLlama tiny;
  tiny.hidden = kHidden;
  tiny.intermediate = kIntermediate;
  tiny.layers = 32;
  tiny.heads = 32;
  tiny.kv_heads = 32;
  tiny.vocab = kVocab;
  GgufBuilder builder = test_support::make_tiny_metadata(tiny);
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    uint64_t size = 2;
    for (const int64_t dimension : shape) size *= static_cast<uint64_t>(dimension);
    builder.add_hollow_tensor(name, shape, 1, size);
  };
  add("token_embd.weight", {kVocab, kHidden});
  add("output.weight", {kVocab, kHidden});
  add("output_norm.weight", {kHidden});
  for (int layer = 0; layer < 32; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      add(prefix + part + ".weight", {kHidden, kHidden});
    }
    for (const char* part : {"ffn_gate", "ffn_up"}) add(prefix + part + ".weight", {kIntermediate, kHidden});
    add(prefix + "ffn_down.weight", {kHidden, kIntermediate});
    for (const char* part : {"attn_norm", "ffn_norm"}) add(prefix + part + ".weight", {kHidden});
  }
  const TempDir dir;
  const auto path = dir.write("7b.gguf", builder.header());
  std::filesystem::resize_file(path, builder.file_size());
  ASSERT_GT(builder.file_size(), 13'000'000'000u);

  const int64_t before = resident_bytes();
  const std::clock_t begin = std::clock();
  const auto checkpoint = Checkpoint::open(path);
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  EXPECT_EQ(checkpoint->names().size(), 3u + 32 * 9);
  EXPECT_EQ(checkpoint->info("model.layers.31.mlp.down_proj.weight").bytes, 2u * kHidden * kIntermediate);
  EXPECT_LT(resident_bytes() - before, 300 << 20);
  // Processor time, which a busy machine does not change much. Reading 13.5 GB takes several seconds.
  EXPECT_LT(seconds, 1.0);
  const Tensor norm = checkpoint->load("model.norm.weight");
  EXPECT_EQ(*norm.data<uint16_t>(), 0);
}

/// Does everything a user of the checkpoint may do.
void exercise(std::span<const std::byte> bytes) {
  const GgufCheckpoint checkpoint(bytes, "tiny.gguf");
  for (const std::string& name : checkpoint.names()) read(checkpoint, name);
  (void)checkpoint.tokenizer_config().dump();
  (void)checkpoint.tokenizer_json().dump();
}

TEST(GgufCheckpoint, EveryTruncationIsAnErrorAndNoFlippedByteCrashes) {
  TinyLlama tiny;
  tiny.hidden = 32;
  tiny.intermediate = 32;
  tiny.layers = 1;
  tiny.heads = 2;
  tiny.kv_heads = 1;
  tiny.type = 3;
  tiny.vocab = 5;
  GgufBuilder builder = make_tiny_builder(tiny);
  builder.add_strings("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab", "c"})
      .add_ints("tokenizer.ggml.token_type", {3, 1, 1, 1, 4});
  builder.add_strings("tokenizer.ggml.merges", {"a b"});
  const std::string whole = builder.build();
  ASSERT_NO_THROW(exercise(std::as_bytes(std::span(whole))));
  for (size_t length = 0; length < whole.size(); ++length) {
    // A copy of its own, so that a sanitizer sees the first byte read beyond it.
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_THROW(exercise(std::as_bytes(std::span(prefix))), Error) << length;
  }
  Random random(5);
  const size_t header = builder.header().size();
  int refused = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string bytes = whole;
    for (uint64_t flips = 1 + random.below(3); flips > 0; --flips) {
      // Mostly where structure is; a small value is more often a valid one.
      const size_t at = random.below(random.below(8) == 0 ? bytes.size() : header);
      bytes[at] = static_cast<char>(random.below(2) == 0 ? random.below(16) : random.next());
    }
    try {
      exercise(std::as_bytes(std::span(bytes)));
    } catch (const Error& error) {
      ++refused;
      const std::string_view text = error.what();
      EXPECT_EQ(text.substr(0, 9), "tiny.gguf") << text;
      EXPECT_EQ(text.find('\n'), std::string_view::npos) << text;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace atom
