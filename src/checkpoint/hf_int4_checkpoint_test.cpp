#include "checkpoint/hf_int4_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/oracle.h"
#include "tensor/half.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;
using test_support::expect_contains;
using test_support::TempDir;

TEST(HfInt4Checkpoint, EqualsWhatWasPacked) {
  if (test_support::test_environment("ATOM_TEST_PYTHON").empty())
    GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  test_support::run_oracle("checkpoint_int4.py", {dir.path().string()});
  int cases = 0;
  for (const auto& folder : std::filesystem::directory_iterator(dir.path())) {
    const auto checkpoint = Checkpoint::open(folder.path());
    EXPECT_FALSE(checkpoint->config().contains("quantization_config"));
    EXPECT_EQ(checkpoint->names().size(), 2u) << folder.path();
    const Tensor expected = checkpoint->load("expected");
    const Tensor found = checkpoint->load("p.weight");
    EXPECT_EQ(found.dtype, expected.dtype);
    EXPECT_EQ(checkpoint->info("p.weight").dtype, expected.dtype);
    EXPECT_EQ(found.shape, expected.shape);
    ASSERT_EQ(found.bytes.size(), expected.bytes.size());
    EXPECT_EQ(std::memcmp(found.bytes.data(), expected.bytes.data(), found.bytes.size()), 0) << folder.path();
    std::vector<float> floats(static_cast<size_t>(found.elements()));
    checkpoint->read_float("p.weight", floats);
    std::vector<float> same(floats.size());
    to_float(found, same);
    EXPECT_EQ(std::memcmp(floats.data(), same.data(), floats.size() * sizeof(float)), 0);
    ++cases;
  }
  EXPECT_EQ(cases, 10);
}

/// The tensors of one layer of 16 inputs and 8 outputs in two groups.
struct Layer {
  std::vector<SafetensorsItem> items = {{"p.qweight", DType::i32, {2, 8}},
                                        {"p.qzeros", DType::i32, {2, 1}},
                                        {"p.scales", DType::f16, {2, 8}},
                                        {"p.g_idx", DType::i32, {16}}};
  std::vector<int32_t> g_idx = std::vector<int32_t>(16, 1);
  uint16_t scale = 0x3C00;
  Json config = {{"model_type", "llama"},
                 {"quantization_config", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 8}}}};

  Json& quantization() { return config["quantization_config"]; }
  SafetensorsItem& item(const std::string& name) {
    return *std::find_if(items.begin(), items.end(), [&](const auto& i) { return i.name == name; });
  }

  void write(const TempDir& dir) const {
    dir.write("config.json", config.dump());
    SafetensorsWriter writer(dir.path() / "model.safetensors", items);
    for (const SafetensorsItem& item : items) {
      size_t count = 1;
      for (const int64_t n : item.shape) count *= static_cast<size_t>(n);
      if (item.name == "p.g_idx" && item.dtype == DType::i32 && count == g_idx.size()) {
        writer.write(item.name, std::span<const int32_t>(g_idx));
      } else if (size_of(item.dtype) == 2) {
        const std::vector<uint16_t> values(count, item.name == "p.scales" ? scale : uint16_t{0});
        writer.write(item.name, std::span<const uint16_t>(values));
      } else {
        // Nibbles 0 to 7.
        const std::vector<int32_t> values(count, 0x76543210);
        if (item.dtype == DType::f32) {
          writer.write(item.name, std::span<const float>(std::vector<float>(count, 0.5f)));
        } else {
          writer.write(item.name, std::span<const int32_t>(values));
        }
      }
    }
    writer.finish();
  }
};

/// Opens the layer and loads its weight.
std::string error_of(const std::function<void(Layer&)>& change) {
  const TempDir dir;
  Layer layer;
  change(layer);
  layer.write(dir);
  try {
    const auto checkpoint = Checkpoint::open(dir.path());
    for (const std::string& name : checkpoint->names()) checkpoint->load(name);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(HfInt4Checkpoint, HidesItsParts) {
  const TempDir dir;
  Layer layer;
  layer.items.push_back({"p.bias", DType::f16, {8}});
  layer.items.push_back({"norm.weight", DType::f16, {8}});
  layer.write(dir);
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"p.weight", "norm.weight"}));
  EXPECT_TRUE(checkpoint->contains("p.weight"));
  for (const char* part : {"p.qweight", "p.qzeros", "p.scales", "p.g_idx", "p.bias", "q.weight"}) {
    EXPECT_FALSE(checkpoint->contains(part)) << part;
    EXPECT_THROW(checkpoint->load(part), Error) << part;
  }
  EXPECT_EQ(checkpoint->info("p.weight").type, "GPTQ-INT4");
  EXPECT_EQ(checkpoint->info("p.weight").bytes, 64u + 8 + 32 + 64);
  const Tensor weight = checkpoint->load("p.weight");
  // Zero points are stored minus one: (input - (output + 1)) * 1.
  for (int64_t o = 0; o < 8; ++o) {
    for (int64_t i = 0; i < 16; ++i) {
      EXPECT_EQ(half_to_float(weight.data<uint16_t>()[o * 16 + i]), static_cast<float>(i % 8 - (o + 1)));
    }
  }
  // A bias that the architecture has stays, though it is zero.
  layer.config["attention_bias"] = true;
  layer.write(dir);
  EXPECT_TRUE(Checkpoint::open(dir.path())->contains("p.bias"));
}

TEST(HfInt4Checkpoint, NamesTensorsThatAreMalformed) {
  EXPECT_EQ(error_of([](Layer&) {}), "no error");
  const auto with_item = [](const char* name, DType dtype, std::vector<int64_t> shape) {
    return error_of([&](Layer& layer) {
      layer.item(name).dtype = dtype;
      layer.item(name).shape = shape;
    });
  };
  expect_contains(with_item("p.qzeros", DType::i32, {1, 1}),
                  "tensor \"p.qzeros\": expected shape [2, 1], found [1, 1]");
  expect_contains(with_item("p.qzeros", DType::f16, {2, 1}),
                  "tensor \"p.qzeros\": expected type I32, found F16");
  expect_contains(with_item("p.scales", DType::f16, {8, 2}), "tensor \"p.scales\": expected shape [2, 8]");
  expect_contains(with_item("p.scales", DType::i32, {2, 8}), "expected type F16, BF16 or F32, found I32");
  expect_contains(with_item("p.qweight", DType::i32, {2, 8, 1}), "expected 2 dimensions, found [2, 8, 1]");
  expect_contains(with_item("p.qweight", DType::i32, {0, 8}), "expected 2 dimensions, found [0, 8]");
  expect_contains(with_item("p.qweight", DType::i32, {2, 9}), "expected a multiple of 8 outputs, found 9");
  expect_contains(with_item("p.g_idx", DType::i32, {8}),
                  "tensor \"p.g_idx\": expected shape [16], found [8]");
  for (const int32_t group : {-1, 2, INT32_MAX}) {
    expect_contains(error_of([&](Layer& layer) { layer.g_idx[7] = group; }),
                    fmt::format("tensor \"p.g_idx\": expected 0 to 1, found {}", group));
  }
  for (const uint16_t scale : {uint16_t{0x7E00}, uint16_t{0xFC00}}) {
    expect_contains(error_of([&](Layer& layer) { layer.scale = scale; }),
                    "tensor \"p.scales\": has values that are NaN or infinite");
  }
  expect_contains(error_of([](Layer& layer) { layer.items.erase(layer.items.begin() + 1); }),
                  "tensor \"p.qzeros\" is missing beside \"p.qweight\"");
  expect_contains(error_of([](Layer& layer) { layer.items.erase(layer.items.begin()); }),
                  "but no tensor \"*.qweight\"");
  expect_contains(error_of([](Layer& layer) {
                    layer.items.push_back({"p.weight", DType::f16, {8, 16}});
                  }),
                  "tensor \"p.weight\" is there beside \"p.qweight\"");
  expect_contains(error_of([](Layer& layer) { layer.quantization()["group_size"] = 3; }),
                  "quantization_config.group_size: expected a divisor of the 16 inputs, found 3");
  expect_contains(error_of([](Layer& layer) {
                    layer.quantization()["modules_to_not_convert"] = {"x", "p"};
                  }),
                  "quantized, but quantization_config.modules_to_not_convert has \"p\"");
}

TEST(HfInt4Checkpoint, NamesFieldsThatAreNotSupported) {
  const auto with = [](const char* method, const char* field, const Json& value) {
    return error_of([&](Layer& layer) {
      layer.quantization()["quant_method"] = method;
      layer.quantization()[field] = value;
    });
  };
  const auto expect_refused = [&](const char* method, const char* field, const Json& value) {
    expect_contains(with(method, field, value), fmt::format("config: quantization_config.{}: ", field));
  };
  for (const Json& value : {Json(3), Json(8), Json("4"), Json(nullptr)})
    expect_refused("gptq", "bits", value);
  for (const Json& value : {Json(0), Json(-2), Json(1.5), Json("8"), Json(uint64_t{1} << 63)})
    expect_refused("gptq", "group_size", value);
  expect_refused("gptq", "checkpoint_format", "marlin");
  expect_refused("gptq", "format", 7);
  expect_refused("gptq", "is_marlin_format", true);
  expect_refused("gptq", "pack_dtype", "int64");
  expect_refused("gptq", "dynamic", Json{{"lm_head", Json::object()}});
  expect_refused("gptq", "rotation", "hadamard");
  expect_refused("gptq", "sym", "yes");
  expect_refused("gptq", "surprise", 1);
  expect_refused("gptq", "modules_to_not_convert", "lm_head");
  expect_refused("gptq", "modules_to_not_convert", Json::array({""}));
  for (const char* version : {"gemv", "gemv_fast", "marlin"}) expect_refused("awq", "version", version);
  expect_refused("awq", "zero_point", false);
  expect_refused("awq", "backend", "llm-awq");
  expect_refused("awq", "desc_act", true);
  expect_contains(error_of([](Layer& layer) {
                    layer.quantization()["format"] = "gptq_v2";
                    layer.quantization()["checkpoint_format"] = "gptq";
                  }),
                  "quantization_config.format: expected the same as checkpoint_format");
  // Full of fields, none of which matters.
  EXPECT_EQ(error_of([](Layer& layer) {
              layer.quantization().update({{"desc_act", true},
                                           {"sym", false},
                                           {"damp_percent", 0.1},
                                           {"meta", {{"quantizer", "x"}}},
                                           {"lm_head", false},
                                           {"dynamic", nullptr},
                                           {"model_name_or_path", ""},
                                           {"format", "GPTQ"}});
            }),
            "no error");
}

}  // namespace
}  // namespace atom
