#include "checkpoint/gguf_quants.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
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

std::vector<GgmlType> all_types() {
  std::vector<GgmlType> types;
  for (uint32_t type = 0; type < 64; ++type) {
    if (find_ggml_layout(type)) types.push_back(static_cast<GgmlType>(type));
  }
  return types;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::vector<float> decode(GgmlType type, const std::string& blocks) {
  const GgmlLayout layout = layout_of(type);
  std::vector<float> values(blocks.size() / layout.bytes * layout.elements);
  dequantize(type, std::as_bytes(std::span(blocks)), values);
  return values;
}

/// Bit for bit; but which of two NaN operands gives its payload to a result is left to the processor, so that
/// one NaN is as good as another.
uint32_t bits_of(float value) {
  return std::isnan(value) ? 0x7FC00000u : std::bit_cast<uint32_t>(value);
}

TEST(GgufQuants, EqualsGoldenValuesBitForBit) {
  const auto golden = read_json_file(source_root() / "tests/golden/checkpoint_dequantize.json");
  EXPECT_EQ(golden.size(), all_types().size());
  for (const GgmlType type : all_types()) {
    const auto& entry = golden.at(layout_of(type).name);
    uint64_t checksum = 0;
    uint64_t weight = 1;
    for (const float value : decode(type, from_hex(entry.at("blocks")))) {
      checksum += bits_of(value) * weight;
      weight += 2;
    }
    EXPECT_EQ(fmt::format("{:016x}", checksum), entry.at("checksum").get<std::string>())
        << layout_of(type).name;
  }
}

TEST(GgufQuants, EqualsPackageGgufOnRandomBlocks) {
  if (test_environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  Random random(7);
  std::vector<std::string> arguments;
  std::map<GgmlType, std::string> blocks;
  for (const GgmlType type : all_types()) {
    const GgmlLayout layout = layout_of(type);
    std::string& bytes = blocks[type];
    bytes.resize(4096 * layout.bytes);
    // Uniform bytes make every kind of scale: denormal, infinite and NaN ones among them.
    for (char& byte : bytes) byte = static_cast<char>(random.next());
    const std::string name = layout.name;
    const auto in = dir.write(name + ".in", bytes);
    arguments.insert(arguments.end(), {name, in.string(), (dir.path() / (name + ".out")).string()});
  }
  run_oracle("checkpoint_dequantize.py", arguments);
  for (const auto& [type, bytes] : blocks) {
    const GgmlLayout layout = layout_of(type);
    const std::string expected = test_support::read_file(dir.path() / (std::string(layout.name) + ".out"));
    const auto values = decode(type, bytes);
    ASSERT_EQ(expected.size(), values.size() * sizeof(float)) << layout.name;
    for (size_t i = 0; i < values.size(); ++i) {
      float want = 0;
      std::memcpy(&want, expected.data() + i * sizeof(float), sizeof(float));
      ASSERT_EQ(bits_of(values[i]), bits_of(want))
          << layout.name << " value " << i << ": " << values[i] << " instead of " << want;
    }
  }
}

TEST(GgufQuants, KnowsLayoutsAndNames) {
  EXPECT_FALSE(find_ggml_layout(9));
  EXPECT_FALSE(find_ggml_layout(15));
  EXPECT_EQ(ggml_type_names().substr(0, 20), "F32, F16, BF16, Q4_0");
  EXPECT_EQ(ggml_type_name(12), "Q4_K");
  EXPECT_EQ(ggml_type_name(30), "BF16");
  EXPECT_EQ(ggml_type_name(4000000000u), "type 4000000000");
  EXPECT_EQ(plain_dtype(GgmlType::bf16), DType::bf16);
  EXPECT_FALSE(plain_dtype(GgmlType::q8_0));
}

}  // namespace
}  // namespace atom
