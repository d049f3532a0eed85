#include "checkpoint/safetensors_writer.h"

#include <csignal>
#include <functional>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/json.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/oracle.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::TempDir;

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string random_bytes(size_t count) {
  Random random(count);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

/// One tensor of every type, and shapes with no dimension and no elements.
const std::vector<SafetensorsItem> kItems = {
    {"i64", DType::i64, {2, 2}},    {"f32", DType::f32, {3}},
    {"i32", DType::i32, {1, 2, 3}}, {"empty", DType::f32, {0, 5}},
    {"f16", DType::f16, {4}},       {"bf16 \"\xC3\xA9\"\n", DType::bf16, {5, 1}},
    {"scalar", DType::i8, {}},      {"u8", DType::u8, {300'001, 10}}};

std::string write_items(const std::filesystem::path& path) {
  SafetensorsWriter writer(path, kItems, {{"format", "pt"}, {"by", "test"}});
  std::string all;
  for (const SafetensorsItem& item : kItems) {
    size_t bytes = size_of(item.dtype);
    for (const int64_t size : item.shape) bytes *= static_cast<size_t>(size);
    const std::string data = random_bytes(bytes);
    // In pieces of growing size, so that both gathered and direct writes occur.
    for (size_t begin = 0, piece = 1; begin < data.size(); begin += piece, piece *= 3) {
      writer.write(item.name,
                   std::as_bytes(std::span(data).subspan(begin, std::min(piece, data.size() - begin))));
      if (begin + piece >= data.size()) break;
    }
    all += data;
  }
  writer.finish();
  return all;
}

TEST(SafetensorsWriter, WhatIsWrittenIsRead) {
  const TempDir dir;
  const auto path = dir.path() / "a.safetensors";
  const std::string all = write_items(path);
  const std::string bytes = test_support::read_file(path);
  ASSERT_GT(bytes.size(), all.size());
  EXPECT_EQ(bytes.substr(bytes.size() - all.size()), all);
  EXPECT_EQ((bytes.size() - all.size()) % 64, 0u);

  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"by", "test"}}));
  ASSERT_EQ(file.entries().size(), kItems.size());
  for (size_t i = 0; i < kItems.size(); ++i) {
    EXPECT_EQ(file.entries()[i].name, kItems[i].name);
    EXPECT_EQ(file.entries()[i].dtype, kItems[i].dtype);
    EXPECT_EQ(file.entries()[i].shape, kItems[i].shape);
  }
}

TEST(SafetensorsWriter, PackageSafetensorsReadsIt) {
  if (test_support::test_environment("ATOM_TEST_PYTHON").empty())
    GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  const auto path = dir.path() / "a.safetensors";
  write_items(path);
  const auto found =
      parse_json(test_support::run_oracle("checkpoint_safetensors.py", {"read", path.string()}), "oracle");
  EXPECT_EQ(found["metadata"]["by"], "test");
  ASSERT_EQ(found["tensors"].size(), kItems.size());
  const SafetensorsFile file(path);
  constexpr char kHex[] = "0123456789abcdef";
  for (const SafetensorsItem& item : kItems) {
    const auto& tensor = found["tensors"].at(item.name);
    EXPECT_EQ(tensor["dtype"], std::string(name_of(item.dtype)));
    EXPECT_EQ(tensor["shape"], nlohmann::ordered_json(item.shape));
    if (!tensor.contains("bytes")) continue;
    std::string hex;
    for (const std::byte byte : file.get(item.name).bytes) {
      hex += kHex[std::to_integer<int>(byte) >> 4];
      hex += kHex[std::to_integer<int>(byte) & 15];
    }
    EXPECT_EQ(tensor["bytes"], hex) << item.name;
  }
}

TEST(SafetensorsWriter, RefusesBadItems) {
  const TempDir dir;
  const auto path = dir.path() / "a.safetensors";
  const auto construct = [&](std::vector<SafetensorsItem> items) {
    return error_of([&] { SafetensorsWriter(path, items); });
  };
  expect_contains(construct({{"a", DType::i8, {1}}, {"a", DType::i8, {1}}}), "tensor \"a\" appears twice");
  expect_contains(construct({{"", DType::i8, {1}}}), "cannot be the name");
  expect_contains(construct({{"__metadata__", DType::i8, {1}}}), "cannot be the name");
  expect_contains(construct({{"\xFF", DType::i8, {1}}}), "cannot be the name");
  expect_contains(construct({{"a", DType::i8, {-1}}}), "negative size -1");
  expect_contains(construct({{"a", DType::f32, {INT64_MAX, 8}}}), "its size overflows");
  expect_contains(construct({{"a", DType::i8, {int64_t{1} << 61}}, {"b", DType::i8, {int64_t{1} << 61}}}),
                  "its size overflows");
  EXPECT_FALSE(std::filesystem::exists(path));
  expect_contains(error_of([&] { SafetensorsWriter(dir.path() / "no" / "file", {}); }),
                  "cannot create: No such file");
  expect_contains(error_of([&] { SafetensorsWriter(dir.path(), {}); }), "cannot create");
  EXPECT_TRUE(std::filesystem::exists(dir.path()));
}

TEST(SafetensorsWriter, RefusesDataOutOfTurnAndRemovesUnfinishedFiles) {
  const TempDir dir;
  const auto path = dir.path() / "a.safetensors";
  const std::string data(8, 'x');
  const auto bytes = [&](size_t count) { return std::as_bytes(std::span(data)).first(count); };
  {
    SafetensorsWriter writer(path, {{"a", DType::i8, {4}}, {"b", DType::i8, {4}}});
    expect_contains(error_of([&] { writer.write("b", bytes(4)); }), "tensor \"b\" is not next: expected a");
    expect_contains(error_of([&] { writer.write("a", bytes(5)); }),
                    "tensor \"a\": expected 4 bytes in all, found 5");
    writer.write("a", bytes(4));
    writer.write("b", bytes(3));
    expect_contains(error_of([&] { writer.finish(); }), "tensor \"b\" has 3 of its 4 bytes");
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(SafetensorsWriter, FullDiskIsOneErrorAndLeavesNoFile) {
  const TempDir dir;
  const auto path = dir.path() / "a.safetensors";
  // The kernel refuses to let a file grow past this limit as it does when a disk is full.
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 1 << 20, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = error_of([&] {
    SafetensorsWriter writer(path, {{"a", DType::i8, {1 << 22}}});
    const std::vector<std::byte> piece(1 << 18);
    for (int i = 0; i < 16; ++i) writer.write("a", piece);
    writer.finish();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error, path.string() + ": cannot write: File too large");
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace atom
