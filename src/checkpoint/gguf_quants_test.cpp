#include "checkpoint/gguf_quants.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/json.h"
#include "checkpoint/testing/oracle.h"

namespace atom {
namespace {

using test_support::run_oracle;
using test_support::source_root;
using test_support::TempDir;
using test_support::test_environment;

constexpr GgmlType kTypes[] = {GgmlType::f32,  GgmlType::f16,  GgmlType::bf16,
                               GgmlType::q4_0, GgmlType::q4_1, GgmlType::q8_0};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

/// Bit for bit; but which of two NaN operands gives its payload to a result is left to the processor, so that
/// one NaN is as good as another.
void expect_same_bits(GgmlType type, const std::string& blocks, const std::string& expected) {
  const GgmlLayout layout = layout_of(type);
  const size_t count = blocks.size() / layout.bytes * layout.elements;
  ASSERT_EQ(expected.size(), count * sizeof(float));
  std::vector<float> values(count);
  dequantize(type, std::as_bytes(std::span(blocks)), values);
  for (size_t i = 0; i < count; ++i) {
    float want = 0;
    std::memcpy(&want, expected.data() + i * sizeof(float), sizeof(float));
    if (std::isnan(want) && std::isnan(values[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(want))
        << layout.name << " value " << i << ": " << values[i] << " instead of " << want;
  }
}

TEST(GgufQuants, EqualsGoldenValuesBitForBit) {
  const auto golden = read_json_file(source_root() / "tests/golden/checkpoint_dequantize.json");
  for (const GgmlType type : kTypes) {
    const auto& entry = golden.at(layout_of(type).name);
    expect_same_bits(type, from_hex(entry.at("blocks")), from_hex(entry.at("values")));
  }
}

TEST(GgufQuants, EqualsPackageGgufOnRandomBlocks) {
  if (test_environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  Random random(7);
  for (const GgmlType type : kTypes) {
    const GgmlLayout layout = layout_of(type);
    std::string blocks(4096 * layout.bytes, '\0');
    // Uniform bytes make every kind of scale: denormal, infinite and NaN ones among them.
    for (char& byte : blocks) byte = static_cast<char>(random.next());
    const auto in = dir.write("blocks", blocks);
    const auto out = dir.path() / "values";
    run_oracle("checkpoint_dequantize.py", {layout.name, in.string(), out.string()});
    expect_same_bits(type, blocks, test_support::read_file(out));
  }
}

TEST(GgufQuants, KnowsLayoutsAndNames) {
  EXPECT_FALSE(find_ggml_layout(12));
  EXPECT_EQ(ggml_type_name(12), "Q4_K");
  EXPECT_EQ(ggml_type_name(30), "BF16");
  EXPECT_EQ(ggml_type_name(4000000000u), "type 4000000000");
  EXPECT_EQ(plain_dtype(GgmlType::bf16), DType::bf16);
  EXPECT_FALSE(plain_dtype(GgmlType::q8_0));
}

}  // namespace
}  // namespace atom
