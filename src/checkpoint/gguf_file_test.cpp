#include "checkpoint/gguf_file.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/tiny_gguf.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::GgufBuilder;

GgufFile open(const std::string& bytes) {
  return GgufFile(std::as_bytes(std::span(bytes)), "file.gguf");
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string open_error(const std::string& bytes) {
  return error_of([&] { open(bytes); });
}

template <class T>
std::string raw(T value) {
  return GgufBuilder::bytes_of(value);
}

TEST(GgufFile, ReadsEveryMetadataType) {
  GgufBuilder builder;
  builder.add("u8", 0, raw<uint8_t>(200)).add("i8", 1, raw<int8_t>(-7)).add("u16", 2, raw<uint16_t>(60000));
  builder.add("i16", 3, raw<int16_t>(-300)).add_u32("u32", 4000000000u).add("i32", 5, raw<int32_t>(-5));
  builder.add_f32("f32", 0.1f).add_bool("yes", true).add_bool("no", false).add_string("text", "h\xC3\xA9");
  builder.add_u64("u64", 1ull << 40).add("i64", 11, raw<int64_t>(1ll << 50)).add("f64", 12, raw<double>(0.1));
  builder.add_strings("strings", {"a", "", "bc"}).add_ints("ints", {1, -2, 3});
  builder.add("bytes", 9, raw(0u) + raw<uint64_t>(2) + "\x05\x06");
  // [[1, 2], [3]]
  builder.add("nested", 9,
              raw(9u) + raw<uint64_t>(2) + raw(0u) + raw<uint64_t>(2) + "\x01\x02" + raw(0u) +
                  raw<uint64_t>(1) + "\x03");
  const std::string bytes = builder.build();
  const GgufFile file = open(bytes);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.get_uint("u8"), 200u);
  EXPECT_EQ(file.get_uint("u16"), 60000u);
  EXPECT_EQ(file.get_uint("u32"), 4000000000u);
  EXPECT_EQ(file.get_uint("u64"), 1ull << 40);
  EXPECT_EQ(file.get_uint("i64"), 1ull << 50);
  EXPECT_EQ(file.get_float("f32"), static_cast<double>(0.1f));
  EXPECT_EQ(file.get_float("f64"), 0.1);
  EXPECT_EQ(file.find_bool("yes"), true);
  EXPECT_EQ(file.find_bool("no"), false);
  EXPECT_EQ(file.get_string("text"), "h\xC3\xA9");
  EXPECT_EQ(file.count_strings("strings"), 3u);
  std::string joined;
  file.for_each_string("strings", [&](uint64_t i, std::string_view text) {
    joined += std::to_string(i) + ":" + std::string(text) + ";";
  });
  EXPECT_EQ(joined, "0:a;1:;2:bc;");
  EXPECT_EQ(file.get_ints("ints"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(file.get_ints("bytes"), (std::vector<int64_t>{5, 6}));
  ASSERT_NE(file.find("nested"), nullptr);
  EXPECT_EQ(file.find("nested")->count, 2u);
  EXPECT_EQ(file.find("missing"), nullptr);
  EXPECT_EQ(file.find_uint("missing"), std::nullopt);
  EXPECT_EQ(file.keys().size(), 17u);

  expect_contains(error_of([&] { file.get_uint("missing"); }),
                  "file.gguf: metadata key \"missing\" is missing");
  expect_contains(error_of([&] { file.get_uint("i32"); }),
                  "metadata key \"i32\": expected an integer from 0");
  expect_contains(error_of([&] { file.get_uint("text"); }), "found a value of type string");
  expect_contains(error_of([&] { file.get_float("u32"); }), "\"u32\": expected f32 or f64, found u32");
  expect_contains(error_of([&] { file.find_bool("u8"); }), "expected bool, found u8");
  expect_contains(error_of([&] { file.get_string("ints"); }), "expected string, found array");
  expect_contains(error_of([&] { file.count_strings("ints"); }), "expected an array of strings, found i32");
  expect_contains(error_of([&] { file.get_ints("strings"); }), "expected an array of integers, found string");
  expect_contains(error_of([&] { file.get_ints("nested"); }), "expected an array of integers, found array");
  expect_contains(error_of([&] { file.get_ints("text"); }), "expected an array of integers");
}

TEST(GgufFile, ReadsTensorsOfVersions2And3WithAnyAlignment) {
  for (const uint32_t version : {2u, 3u}) {
    for (const uint64_t alignment : {1u, 8u, 32u, 256u}) {
      GgufBuilder builder;
      builder.version(version).alignment(alignment).add_u32("general.alignment",
                                                            static_cast<uint32_t>(alignment));
      builder.add_tensor("a", {3}, 0, raw(1.0f) + raw(2.0f) + raw(3.0f));
      builder.add_tensor("b", {2, 32}, 2, std::string(36, 'q')).add_tensor("c", {1, 1, 2, 1}, 30, "wxyz");
      const std::string bytes = builder.build();
      const GgufFile file = open(bytes);
      ASSERT_EQ(file.tensors().size(), 3u);
      EXPECT_EQ(file.tensors()[0].bytes.size(), 12u);
      EXPECT_EQ(std::memcmp(file.tensors()[0].bytes.data() + 4, raw(2.0f).data(), 4), 0);
      EXPECT_EQ(file.tensors()[1].name, "b");
      EXPECT_EQ(file.tensors()[1].shape, (std::vector<int64_t>{2, 32}));
      EXPECT_EQ(file.tensors()[1].bytes.size(), 36u);
      EXPECT_EQ(file.tensors()[2].shape, (std::vector<int64_t>{1, 1, 2, 1}));
      EXPECT_EQ(static_cast<char>(file.tensors()[2].bytes[0]), 'w');
    }
  }
}

TEST(GgufFile, RefusesWrongMagicAndVersion) {
  expect_contains(open_error(""), "file.gguf: truncated or corrupt: magic");
  expect_contains(open_error(std::string("GGML").append(raw(3u))),
                  "expected the magic \"GGUF\", found \"GGML\"");
  expect_contains(open_error(GgufBuilder().version(1).build()),
                  "GGUF version: expected 2 or 3 (little-endian), found 1");
  expect_contains(open_error(GgufBuilder().version(4).build()), "found 4");
  expect_contains(open_error(GgufBuilder().version(0x03000000).build()), "a big-endian file");
}

TEST(GgufFile, RefusesHugeCountsAndLengths) {
  constexpr uint64_t kHuge[] = {UINT64_MAX, 1ull << 63, 1ull << 61, 1ull << 40};
  const std::string start = std::string("GGUF").append(raw(3u));
  for (const uint64_t huge : kHuge) {
    expect_contains(open_error(start + raw(huge) + raw<uint64_t>(0)), "tensor count: expected at most");
    expect_contains(open_error(start + raw<uint64_t>(0) + raw(huge)), "metadata count: expected at most");
    const std::string one_key = start + raw<uint64_t>(0) + raw<uint64_t>(1);
    expect_contains(open_error(one_key + raw(huge) + "key"), "truncated or corrupt: metadata key");
    for (const uint32_t element : {0u, 2u, 4u, 8u, 9u, 12u}) {
      GgufBuilder builder;
      builder.add("key", 9, raw(element) + raw(huge));
      EXPECT_NE(open_error(builder.build()), "no error") << element;
    }
    GgufBuilder text;
    text.add("key", 8, raw(huge) + "abc");
    expect_contains(open_error(text.build()), "truncated or corrupt: key");
    for (const int64_t other : {int64_t{1}, int64_t{1} << 32, static_cast<int64_t>(huge)}) {
      GgufBuilder tensor;
      tensor.add_tensor("t", {static_cast<int64_t>(huge), other}, 0, "");
      EXPECT_NE(open_error(tensor.build()), "no error");
    }
  }
  // 65,536 small keys are still accepted, one more is not.
  expect_contains(open_error(start + raw<uint64_t>(0) + raw<uint64_t>(65537)),
                  "expected at most 65536, found 65537");
}

TEST(GgufFile, RefusesBadMetadata) {
  expect_contains(open_error(GgufBuilder().add("key", 13, "").build()),
                  "expected a type from 0 to 12, found 13");
  expect_contains(open_error(GgufBuilder().add("key", 9, raw(77u) + raw<uint64_t>(0)).build()), "found 77");
  expect_contains(open_error(GgufBuilder().add("key", 7, "\x02").build()),
                  "expected a bool of 0 or 1, found 2");
  expect_contains(open_error(GgufBuilder().add_u32("", 1).build()), "metadata key 0: expected 1 to");
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += raw(9u) + raw<uint64_t>(1);
  expect_contains(open_error(GgufBuilder().add("key", 9, deep).build()), "arrays nested deeper than 4");
  std::string twice = "GGUF";
  twice += raw(3u) + raw<uint64_t>(0) + raw<uint64_t>(2);
  for (const char* value : {"\x01", "\x02"}) twice += GgufBuilder::string_of("k") + raw(0u) + value;
  expect_contains(open_error(twice), "metadata key \"k\" appears twice");
  const std::string text = GgufBuilder().add_string("key", "\xFF\xFE").build();
  const GgufFile file = open(text);
  expect_contains(error_of([&] { file.get_string("key"); }), "metadata key \"key\": not valid UTF-8");
}

TEST(GgufFile, RefusesBadTensors) {
  const auto one = [](const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                      size_t bytes) {
    return open_error(GgufBuilder().add_tensor(name, shape, type, std::string(bytes, 'x')).build());
  };
  expect_contains(one("t", {4}, 16, 16), "tensor \"t\": expected one of the types F32, F16, BF16, Q4_0, ");
  expect_contains(one("t", {4}, 16, 16), ", found IQ2_XXS");
  expect_contains(one("t", {2, 128}, 12, 144),
                  "expected rows of a multiple of 256 values for Q4_K, found 128");
  expect_contains(one("t", {4}, 9999, 16), "found type 9999");
  expect_contains(one("t", {}, 0, 4), "expected 1 to 4 dimensions, found 0");
  expect_contains(one("t", {1, 1, 1, 1, 1}, 0, 4), "found 5");
  expect_contains(one("t", {0}, 0, 0), "dimension 0 of 0 is out of range");
  expect_contains(one("t", {2, 48}, 2, 54), "expected rows of a multiple of 32 values for Q4_0, found 48");
  expect_contains(one("", {1}, 0, 4), "name of tensor 0: expected 1 to");
  expect_contains(one("t", {1000}, 0, 4), "its 4000 bytes are more than the file's");
  expect_contains(one("t", {16}, 0, 4), "truncated or corrupt: tensor \"t\" needs 64 bytes at offset 0 of 4");
  expect_contains(one(std::string("a\n\x1B", 3), {0}, 0, 0), "tensor \"a\\x0a\\x1b\"");
  GgufBuilder twice;
  twice.add_tensor("t", {1}, 0, "abcd").add_tensor("t", {1}, 0, "abcd");
  expect_contains(open_error(twice.build()), "tensor \"t\" appears twice");

  for (const uint32_t alignment : {0u, 3u, 24u, 1u << 31}) {
    expect_contains(open_error(GgufBuilder().add_u32("general.alignment", alignment).build()),
                    "general.alignment: expected a power of two");
  }
  expect_contains(open_error(GgufBuilder().add_string("general.alignment", "32").build()),
                  "general.alignment");

  // The offset is the last field of the header.
  GgufBuilder pair;
  pair.add_tensor("a", {16}, 0, std::string(64, 'a')).add_tensor("b", {16}, 0, std::string(64, 'b'));
  const auto with_offset = [&](uint64_t offset) {
    std::string bytes = pair.build();
    std::memcpy(bytes.data() + pair.header().size() - 8, &offset, 8);
    return open_error(bytes);
  };
  EXPECT_EQ(with_offset(64), "no error");
  expect_contains(with_offset(63), "tensor \"b\": expected an offset that is a multiple of 32, found 63");
  expect_contains(with_offset(32), "tensors \"a\" and \"b\" overlap");
  expect_contains(with_offset(0), "overlap");
  expect_contains(with_offset(96), "tensor \"b\" needs 64 bytes at offset 96");
  expect_contains(with_offset(UINT64_MAX - 31), "truncated or corrupt: tensor \"b\"");
}

}  // namespace
}  // namespace atom
