#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_writer.h"

namespace atom {
namespace {

using test_support::TempDir;

std::string open_error(const std::filesystem::path& path) {
  try {
    Checkpoint::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

void write_model(const TempDir& dir) {
  dir.write("config.json", R"({"model_type": "llama", "anything": [1, 2]})");
  dir.write("tokenizer.json", R"({"model": {"type": "BPE"}})");
  SafetensorsWriter writer(dir.path() / "model.safetensors",
                           {{"b", DType::f32, {1, 2}}, {"a", DType::bf16, {3}}});
  const float b[] = {1.5f, -2.0f};
  writer.write("b", std::span<const float>(b));
  const uint16_t a[] = {0x3F80, 0x4000, 0x7FC0};
  writer.write("a", std::span<const uint16_t>(a));
  writer.finish();
}

TEST(HfCheckpoint, ReadsADirectory) {
  const TempDir dir;
  write_model(dir);
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->format(), "safetensors");
  EXPECT_EQ(checkpoint->path(), dir.path());
  EXPECT_EQ(checkpoint->config().dump(), R"({"model_type":"llama","anything":[1,2]})");
  EXPECT_EQ(checkpoint->tokenizer_json()["model"]["type"], "BPE");
  EXPECT_EQ(checkpoint->tokenizer_config(), nlohmann::ordered_json::object());
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"b", "a"}));
  EXPECT_TRUE(checkpoint->contains("a"));
  EXPECT_FALSE(checkpoint->contains("c"));
  EXPECT_EQ(checkpoint->info("a").type, "BF16");
  EXPECT_EQ(checkpoint->info("a").shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(checkpoint->info("a").bytes, 6u);
  const Tensor b = checkpoint->load("b");
  EXPECT_EQ(b.data<float>()[1], -2.0f);
  std::vector<float> a(3);
  checkpoint->read_float("a", a);
  EXPECT_EQ(a[1], 2.0f);
  EXPECT_THROW(checkpoint->info("c"), Error);
  EXPECT_THROW(checkpoint->read_float("b", a), Error);
}

TEST(HfCheckpoint, ChatTemplateFileTakesPrecedence) {
  const TempDir dir;
  write_model(dir);
  dir.write("tokenizer_config.json", R"({"chat_template": "old", "bos_token": "<s>"})");
  EXPECT_EQ(Checkpoint::open(dir.path())->tokenizer_config()["chat_template"], "old");
  dir.write("chat_template.jinja", "new {{ x }}");
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->tokenizer_config()["chat_template"], "new {{ x }}");
  EXPECT_EQ(checkpoint->tokenizer_config()["bos_token"], "<s>");
  dir.write("chat_template.jinja", "\xFF");
  expect_contains(open_error(dir.path()), "chat_template.jinja: not valid UTF-8");
}

TEST(HfCheckpoint, NamesWhatIsMissingOrMalformed) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const TempDir dir;
    write_model(dir);
    std::filesystem::remove(dir.path() / name);
    const std::string missing = (dir.path() / name).string() + ": missing from the model directory";
    if (std::string(name) == "tokenizer.json") {
      const auto checkpoint = Checkpoint::open(dir.path());
      EXPECT_FALSE(checkpoint->has_tokenizer());
      try {
        checkpoint->tokenizer_json();
        ADD_FAILURE() << "there is no tokenizer";
      } catch (const Error& error) {
        expect_contains(error.what(), missing);
      }
    } else {
      expect_contains(open_error(dir.path()), missing);
    }
    dir.write(name, "garbage!");
    expect_contains(open_error(dir.path()), (dir.path() / name).string() + ": ");
    dir.write(name, "[1]");
    expect_contains(open_error(dir.path()), (dir.path() / name).string() + ": ");
  }
  const TempDir dir;
  write_model(dir);
  dir.write("tokenizer_config.json", "3");
  expect_contains(open_error(dir.path()), "tokenizer_config.json: expected a JSON object, found number");
  expect_contains(open_error(dir.path() / "nothing"), "nothing: no such file or directory");
}

TEST(HfCheckpoint, RefusesShards) {
  const TempDir dir;
  write_model(dir);
  std::filesystem::remove(dir.path() / "model.safetensors");
  dir.write("model.safetensors.index.json", "{}");
  expect_contains(open_error(dir.path()),
                  "model.safetensors.index.json: sharded checkpoints are not supported yet");
}

}  // namespace
}  // namespace atom
