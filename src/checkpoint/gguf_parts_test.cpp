#include "checkpoint/gguf_parts.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/tiny_gguf.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::GgufBuilder;
using test_support::open_error;
using test_support::TempDir;

constexpr uint32_t kU16 = 2;

void add_split(GgufBuilder& builder, int number, int count, int tensors) {
  builder.add("split.no", kU16, GgufBuilder::bytes_of(static_cast<uint16_t>(number)))
      .add("split.count", kU16, GgufBuilder::bytes_of(static_cast<uint16_t>(count)))
      .add("split.tensors.count", 5, GgufBuilder::bytes_of(int32_t{tensors}));
}

/// Writes a tiny model as three parts, the first without tensors, as package gguf does; `change` may change
/// each.
void write_parts(const TempDir& dir, const std::function<void(int, GgufBuilder&)>& change = {}) {
  const test_support::TinyLlama tiny;
  const auto tensors = test_support::make_tiny_tensors(tiny);
  for (int part = 0; part < 3; ++part) {
    GgufBuilder builder = part == 0 ? test_support::make_tiny_metadata(tiny) : GgufBuilder();
    add_split(builder, part, 3, static_cast<int>(tensors.size()));
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (part != (i < 7 ? 1 : 2)) continue;
      const std::string bytes = test_support::encode_values(tensors[i].values, 0);
      builder.add_tensor(tensors[i].name, tensors[i].shape, 0, bytes);
    }
    if (change) change(part, builder);
    dir.write(fmt::format("m-{:05}-of-00003.gguf", part + 1), builder.build());
  }
}

TEST(GgufParts, AnyPartOpensAll) {
  const TempDir dir;
  write_parts(dir);
  const auto tensors = test_support::make_tiny_tensors({});
  for (const char* name : {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}) {
    const auto checkpoint = Checkpoint::open(dir.path() / name);
    EXPECT_EQ(checkpoint->names().size(), tensors.size());
    EXPECT_EQ(checkpoint->config()["hidden_size"], 64);
    EXPECT_EQ(checkpoint->files().size(), 3u);
    for (size_t i : {size_t{0}, tensors.size() - 1}) {
      std::vector<float> values(tensors[i].values.size());
      checkpoint->read_float(checkpoint->names()[i], values);
      EXPECT_EQ(values, tensors[i].values);
    }
  }
  // One part of one may have any name.
  GgufBuilder whole = test_support::make_tiny_builder({});
  add_split(whole, 0, 1, static_cast<int>(tensors.size()));
  EXPECT_EQ(Checkpoint::open(dir.write("whole", whole.build()))->names().size(), tensors.size());
}

TEST(GgufParts, NamesThePartThatIsMissingOrDoesNotBelong) {
  const auto error_with = [](const std::function<void(int, GgufBuilder&)>& change) {
    const TempDir dir;
    write_parts(dir, change);
    return open_error(dir.path() / "m-00001-of-00003.gguf");
  };
  const auto in_third = [&](const std::function<void(GgufBuilder&)>& change) {
    return error_with([&](int part, GgufBuilder& builder) {
      if (part == 2) change(builder);
    });
  };
  EXPECT_EQ(error_with({}), "no error");
  expect_contains(in_third([](auto& b) { add_split(b, 1, 3, 20); }),
                  "m-00003-of-00003.gguf: split.no: expected 2, found 1");
  expect_contains(in_third([](auto& b) { add_split(b, 2, 4, 20); }),
                  "m-00003-of-00003.gguf: split.count: expected 3, found 4");
  expect_contains(in_third([](auto& b) { add_split(b, 2, 3, 21); }),
                  "m-00003-of-00003.gguf: metadata key \"split.tensors.count\": differs from");
  expect_contains(in_third([](auto& b) { b.add_string("general.architecture", "qwen2"); }),
                  "metadata key \"general.architecture\": differs from");
  expect_contains(in_third([](auto& b) { b.add_string("general.other", "x"); }), "parts of different models");
  expect_contains(in_third([](auto& b) { b.add_tensor("token_embd.weight", {1}, 0, "abcd"); }),
                  "m-00003-of-00003.gguf: tensor \"token_embd.weight\" is in ");
  expect_contains(in_third([](auto& b) { b.version(9); }), "m-00003-of-00003.gguf: GGUF version");
  expect_contains(error_with([](int part, GgufBuilder& b) { add_split(b, part, 3, 19); }),
                  "split.tensors.count: expected 20, as many as there are, found 19");
  expect_contains(error_with([](int part, GgufBuilder& b) { b.remove("split.tensors.count"); }),
                  "\"split.tensors.count\" is missing");
  expect_contains(error_with([](int part, GgufBuilder& b) { add_split(b, part, 0, 20); }),
                  "split.count: expected 1 to 99999, found 0");
  expect_contains(error_with([](int part, GgufBuilder& b) { add_split(b, part + 3, 3, 20); }),
                  "split.no: expected 0 to 2, found 3");
  const TempDir dir;
  write_parts(dir);
  const auto first = dir.path() / "m-00001-of-00003.gguf";
  std::filesystem::copy_file(first, dir.path() / "renamed.gguf");
  expect_contains(open_error(dir.path() / "renamed.gguf"),
                  "it says that it is part 1 of 3: expected a name that ends in \"-00001-of-00003.gguf\"");
  std::filesystem::remove(dir.path() / "m-00002-of-00003.gguf");
  expect_contains(open_error(first), "m-00002-of-00003.gguf: part 2 of 3 is missing");
}

}  // namespace
}  // namespace atom
