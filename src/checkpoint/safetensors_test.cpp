#include "checkpoint/safetensors.h"

#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/json.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/oracle.h"
#include "tensor/half.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::TempDir;

std::string with_header(const std::string& json, const std::string& data = "") {
  const uint64_t length = json.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + json + data;
}

SafetensorsFile open(const std::string& bytes) {
  return SafetensorsFile(std::as_bytes(std::span(bytes)), "file.safetensors");
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

/// A file of one tensor with this description and eight bytes of data.
std::string one(const std::string& description) {
  return with_header("{\"t\":" + description + "}", "12345678");
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string bytes = with_header(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},)"
      R"("a":{"shape":[1,1],"data_offsets":[0,4],"dtype":"F32"},"none":{"dtype":"I64","shape":[3,0],"data_offsets":[4,4]},)"
      R"("c":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}   )",
      std::string("\x00\x00\x80\x3f", 4) + std::string("\x00\x3c\x00\xc0", 4) + "z");
  const SafetensorsFile file = open(bytes);
  ASSERT_EQ(file.entries().size(), 4u);
  EXPECT_EQ(file.entries()[0].name, "a");
  EXPECT_EQ(file.entries()[1].name, "none");
  EXPECT_EQ(file.entries()[2].name, "b");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  float a = 0;
  file.read_float("a", {&a, 1});
  EXPECT_EQ(a, 1.0f);
  float b[2] = {};
  file.read_float("b", b);
  EXPECT_EQ(b[0], 1.0f);
  EXPECT_EQ(b[1], -2.0f);
  EXPECT_EQ(file.load("none").elements(), 0);
  EXPECT_EQ(file.load("none").shape, (std::vector<int64_t>{3, 0}));
  EXPECT_EQ(file.load("c").elements(), 1);
  EXPECT_EQ(*file.load("c").data<char>(), 'z');
  EXPECT_EQ(file.find("d"), nullptr);
  expect_contains(error_of([&] { file.load("d"); }), "file.safetensors: tensor \"d\" is missing");
  expect_contains(error_of([&] { file.read_float("a", b); }), "tensor \"a\": expected 2 values, it has 1");
  expect_contains(error_of([&] {
                    file.read_float("c", {&a, 1});
                  }),
                  "tensor \"c\": expected F32, F16 or BF16, found U8");
}

TEST(Safetensors, MisalignedTensorsAreCopied) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"I64","shape":[1],"data_offsets":[1,9]}})";
  const int64_t value = -5'000'000'000;
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  const std::string bytes = with_header(header, data);
  const Tensor tensor = open(bytes).load("b");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 8, 0u);
  EXPECT_EQ(*tensor.data<int64_t>(), value);
}

TEST(Safetensors, TensorsOutliveTheFile) {
  const TempDir dir;
  const auto path = dir.write("a.safetensors", one(R"({"dtype":"I8","shape":[8],"data_offsets":[0,8]})"));
  Tensor tensor;
  {
    const SafetensorsFile file(path);
    tensor = file.load("t");
  }
  EXPECT_EQ(*tensor.data<char>(), '1');
}

TEST(Safetensors, RefusesBadHeaders) {
  const auto length_only = [](uint64_t length) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes;
  };
  expect_contains(open_error("1234567"), "truncated or corrupt: header length");
  expect_contains(open_error(length_only(1)),
                  "truncated or corrupt: header at byte 8 needs 1 bytes, 0 are left");
  expect_contains(open_error(length_only(UINT64_MAX)), "header length: expected at most 8000000 bytes");
  expect_contains(open_error(length_only(8'000'001)), "header length");
  expect_contains(open_error(length_only(0)), "not a safetensors file");
  expect_contains(open_error(with_header("[]")), "expected the header to begin with \"{\"");
  expect_contains(open_error(with_header("{")), "file.safetensors: invalid JSON");
  expect_contains(open_error(with_header("{\"a\":" + std::string(1'000'000, '['))), "nested deeper than 8");
  expect_contains(open_error(with_header(R"({"a":1,"a":1})")), "\"a\" appears twice");
  expect_contains(open_error(with_header(R"({"a":1})")), "tensor \"a\": expected an object, found number");
  expect_contains(open_error(with_header(R"({"__metadata__":3})")), "__metadata__: expected an object");
  expect_contains(open_error(with_header(R"({"__metadata__":{"k":3}})")),
                  "__metadata__: k: expected a string");
  expect_contains(open_error(with_header("{}", "abc")), "3 bytes behind the last tensor");
  EXPECT_EQ(open_error(with_header("{}")), "no error");
}

TEST(Safetensors, RefusesBadTensors) {
  EXPECT_EQ(open_error(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})")), "no error");
  expect_contains(open_error(one("{}")), "tensor \"t\": dtype is missing");
  expect_contains(open_error(one(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})")),
                  "dtype: expected F32, F16, BF16, I64, I32, I8 or U8, found \"F64\"");
  expect_contains(open_error(one(R"({"dtype":7,"shape":[1],"data_offsets":[0,8]})")), "found 7");
  expect_contains(open_error(one(R"({"dtype":"F32","data_offsets":[0,8]})")), "shape is missing");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})")),
                  "shape: expected an array");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})")),
                  "shape: expected an integer");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})")), "found 2.0");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})")),
                  "9 sizes");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2]})")), "data_offsets is missing");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})")),
                  "expected two integers");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,9]})")), "found 0 to 9");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})")), "found 8 to 0");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})")),
                  "need 12 bytes, found 8");
  expect_contains(open_error(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})")),
                  "unknown field \"x\"");
  // Products that would wrap around to the right size.
  for (const char* shape :
       {"[4611686018427387906]", "[9223372036854775809,2]", "[4294967296,4294967296,2]",
        "[18446744073709551615]", "[18446744073709551616]", "[2,1,3037000500,3037000500,3037000500]"}) {
    const auto error =
        open_error(one(std::string(R"({"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,8]})"));
    expect_contains(error, "tensor \"t\": shape");
  }
  const auto two = [](const char* first, const char* second) {
    return open_error(with_header(std::string(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":)") + first +
                                      R"(},"b":{"dtype":"I8","shape":[4],"data_offsets":)" + second + "}}",
                                  "123456789"));
  };
  expect_contains(two("[0,4]", "[2,6]"), "tensors overlap");
  expect_contains(two("[0,4]", "[0,4]"), "tensors overlap");
  expect_contains(two("[0,4]", "[5,9]"), "a gap between tensors");
  expect_contains(two("[1,5]", "[5,9]"), "a gap between tensors");
  expect_contains(two("[0,4]", "[4,8]"), "1 bytes behind the last tensor");
}

TEST(Safetensors, ReadsWhatPackageSafetensorsWrites) {
  if (test_support::test_environment("ATOM_TEST_PYTHON").empty())
    GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  const auto path = dir.path() / "python.safetensors";
  test_support::run_oracle("checkpoint_safetensors.py", {"write", path.string()});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.entries().size(), 8u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, type] : {std::pair("f32", DType::f32), std::pair("f16", DType::f16)}) {
    float values[6] = {};
    file.read_float(name, values);
    EXPECT_EQ(file.get(name).dtype, type);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(values[i], static_cast<float>(i - 3));
  }
  const Tensor i64 = file.load("i64");
  const Tensor i32 = file.load("i32");
  const Tensor i8 = file.load("i8");
  const Tensor u8 = file.load("u8");
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(i64.data<int64_t>()[i], i - 3);
    EXPECT_EQ(i32.data<int32_t>()[i], i - 3);
    EXPECT_EQ(i8.data<int8_t>()[i], i - 3);
    EXPECT_EQ(u8.data<uint8_t>()[i], i);
  }
  EXPECT_EQ(file.get("empty").shape, (std::vector<int64_t>{0, 4}));
  EXPECT_TRUE(file.get("scalar").shape.empty());
}

TEST(Safetensors, EveryTruncationIsAnErrorAndNoFlippedByteCrashes) {
  const std::string whole =
      with_header(R"({"__metadata__":{"k":"v"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                  R"("b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})",
                  "0123456789abcdef");
  for (size_t length = 0; length < whole.size(); ++length) {
    // A copy of its own, so that a sanitizer sees the first byte read beyond it.
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_THROW(SafetensorsFile(std::as_bytes(std::span(prefix)), "file"), Error) << length;
  }
  Random random(3);
  int accepted = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string bytes = whole;
    for (uint64_t flips = 1 + random.below(3); flips > 0; --flips) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    try {
      const SafetensorsFile file = open(bytes);
      for (const SafetensorsEntry& entry : file.entries()) {
        std::vector<float> values(static_cast<size_t>(file.load(entry.name).elements()));
        if (is_float(entry.dtype)) file.read_float(entry.name, values);
      }
      ++accepted;
    } catch (const Error& error) {
      EXPECT_EQ(std::string_view(error.what()).substr(0, 16), "file.safetensors");
    }
  }
  // Flips in the tensors' data change nothing else.
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace atom
