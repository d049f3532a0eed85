#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/testing/errors.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::open_error;
using test_support::TempDir;

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

/// Two files, one with b and one with a, and an index of `weight_map`.
void write_shards(const TempDir& dir, const std::string& weight_map) {
  dir.write("config.json", "{}");
  for (const char* name : {"a", "b"}) {
    SafetensorsWriter writer(dir.path() / fmt::format("{}.safetensors", name), {{name, DType::f32, {1}}});
    const float value[] = {name[0] == 'a' ? 1.0f : 2.0f};
    writer.write(name, std::span<const float>(value));
    writer.finish();
  }
  dir.write("model.safetensors.index.json",
            R"({"metadata": {"total_size": 8}, "weight_map": )" + weight_map + "}");
}

TEST(HfCheckpoint, ReadsShards) {
  const TempDir dir;
  write_shards(dir, R"({"b": "b.safetensors", "a": "a.safetensors"})");
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(checkpoint->files().size(), 2u);
  EXPECT_EQ(checkpoint->load("b").data<float>()[0], 2.0f);
  float a = 0;
  checkpoint->read_float("a", {&a, 1});
  EXPECT_EQ(a, 1.0f);
  EXPECT_EQ(checkpoint->info("b").bytes, 4u);
  EXPECT_THROW(checkpoint->load("c"), Error);
}

TEST(HfCheckpoint, NamesWhatIsWrongWithShards) {
  const auto error_of = [](const std::string& weight_map) {
    const TempDir dir;
    write_shards(dir, weight_map);
    return open_error(dir.path());
  };
  const std::string good = R"("a": "a.safetensors", "b": "b.safetensors")";
  EXPECT_EQ(error_of("{" + good + "}"), "no error");
  expect_contains(error_of("{" + good + R"(, "c": "c.safetensors"})"),
                  "c.safetensors: missing from the model");
  expect_contains(error_of("{" + good + R"(, "c": "a.safetensors"})"),
                  "a.safetensors: tensor \"c\" is missing");
  expect_contains(error_of(R"({"a": "a.safetensors", "b": "a.safetensors"})"),
                  "a.safetensors: tensor \"b\" is missing");
  expect_contains(error_of(R"({"a": "b.safetensors", "b": "a.safetensors"})"),
                  "b.safetensors: tensor \"a\" is missing");
  for (const char* name : {"../a.safetensors", "/a.safetensors", "x/a.safetensors", "..", "", "a.bin",
                           ".safetensors", "a\\u0000.safetensors", "x\\\\a.safetensors"}) {
    expect_contains(error_of("{" + good + R"(, "c": ")" + name + "\"}"),
                    "model.safetensors.index.json: weight_map: tensor \"c\": expected the name of a");
  }
  expect_contains(error_of(R"({"a": 7})"), "tensor \"a\": expected the name of a file, found number");
  for (const char* map : {"{}", "[]", "7"}) expect_contains(error_of(map), "weight_map: expected an object");
  const TempDir dir;
  write_shards(dir, "{" + good + "}");
  std::filesystem::copy_file(dir.path() / "a.safetensors", dir.path() / "c.safetensors");
  dir.write("model.safetensors.index.json",
            R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors", "c": "c.safetensors"}})");
  expect_contains(open_error(dir.path()), "c.safetensors: tensor \"a\" is in ");
  SafetensorsWriter writer(dir.path() / "c.safetensors",
                           {{"c", DType::f32, {1}}, {"extra", DType::f32, {1}}});
  const float value[] = {1.0f};
  writer.write("c", std::span<const float>(value));
  writer.write("extra", std::span<const float>(value));
  writer.finish();
  expect_contains(open_error(dir.path()), "c.safetensors: tensor \"extra\" is not in the weight_map of ");
}

}  // namespace
}  // namespace atom
