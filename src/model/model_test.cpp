#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/testing/oracle.h"

namespace atom {
namespace {

using test_support::source_root;

std::filesystem::path golden(const std::string& name) {
  return source_root() / "tests" / "golden" / name;
}

template <class T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
  const Tensor tensor = file.load(name);
  const T* data = tensor.data<T>();
  return {data, data + tensor.elements()};
}

/// Feeds sequences to a model step by step and gives the logits of every row.
class Feeder {
 public:
  Feeder(const Model& model, KvFormat format, int64_t blocks = 64)
      : model_(model), cache_(model.kv_shape(), format, blocks), workspace_(model.device()) {}

  int64_t add_sequence() {
    tables_.push_back(std::make_unique<BlockTable>(cache_));
    return static_cast<int64_t>(tables_.size()) - 1;
  }

  /// One ragged step: tokens[i] go to sequences[i]. Returns logits [all tokens, vocab] in that order.
  Matrix<float> step(const std::vector<int64_t>& sequences, const std::vector<std::vector<int32_t>>& tokens) {
    std::vector<int32_t> all, positions;
    std::vector<int64_t> slots;
    std::vector<SequenceSpan> spans;
    for (size_t i = 0; i < sequences.size(); ++i) {
      BlockTable& table = *tables_[static_cast<size_t>(sequences[i])];
      const auto count = static_cast<int64_t>(tokens[i].size());
      for (int64_t p = 0; p < count; ++p) positions.push_back(static_cast<int32_t>(table.length() + p));
      table.append(count, slots);
      spans.push_back({static_cast<int64_t>(all.size()), count, table.length(), table.blocks()});
      all.insert(all.end(), tokens[i].begin(), tokens[i].end());
    }
    const auto hidden = model_.forward({all, positions, slots, spans}, cache_, workspace_);
    Matrix<float> logits(hidden.rows, model_.config().vocab);
    model_.logits(hidden, logits.view(), workspace_);
    return logits;
  }

 private:
  const Model& model_;
  PagedKvCache cache_;
  Workspace workspace_;
  std::vector<std::unique_ptr<BlockTable>> tables_;
};

class GoldenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, LogitsEqualTransformers) {
  ThreadPool pool(2);
  for (const CpuIsa isa : {CpuIsa::reference, detect_cpu_isa()}) {
    const DeviceContext device{&pool, isa};
    const auto checkpoint = Checkpoint::open(golden(GetParam()));
    const auto model = Model::load(*checkpoint, device);
    const SafetensorsFile file(golden(std::string(GetParam()) + "_logits.safetensors"));
    const auto tokens = values_of<int32_t>(file, "tokens");
    const auto expected = values_of<float>(file, "logits");
    Feeder feeder(*model, KvFormat::f32);
    feeder.add_sequence();
    const Matrix<float> logits = feeder.step({0}, {tokens});
    ASSERT_EQ(static_cast<size_t>(logits.span().size()), expected.size());
    float worst = 0;
    for (size_t i = 0; i < expected.size(); ++i)
      worst = std::max(worst, std::fabs(logits.span()[i] - expected[i]));
    EXPECT_LT(worst, 1e-4f) << name_of(isa);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GoldenModel,
                         ::testing::Values("gqa_tied_f32", "mqa_untied_bf16", "mha_wide_heads_f16"));

TEST(RealModel, LogitsAreWithin2e3OfTransformersOver512Tokens) {
  const std::string path = test_support::test_environment("ATOM_TEST_MODEL");
  if (path.empty()) GTEST_SKIP() << "ATOM_TEST_MODEL is not set";
  ThreadPool pool(2);
  const DeviceContext device{&pool, detect_cpu_isa()};
  const auto checkpoint = Checkpoint::open(path);
  const auto model = Model::load(*checkpoint, device);
  const SafetensorsFile file(golden("smollm2_logits.safetensors"));
  const auto tokens = values_of<int32_t>(file, "tokens");
  const auto ids = values_of<int32_t>(file, "sampled_ids");
  const auto sampled = values_of<float>(file, "sampled_logits");
  const auto top_ids = values_of<int32_t>(file, "top_ids");
  const auto top_logits = values_of<float>(file, "top_logits");
  Feeder feeder(*model, KvFormat::f32);
  feeder.add_sequence();
  const Matrix<float> logits = feeder.step({0}, {tokens});
  float worst = 0;
  for (int64_t t = 0; t < logits.rows(); ++t) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const float expected = sampled[static_cast<size_t>(t) * ids.size() + i];
      worst = std::max(worst, std::fabs(logits(t, ids[i]) - expected));
    }
    worst = std::max(
        worst, std::fabs(logits(t, top_ids[static_cast<size_t>(t)]) - top_logits[static_cast<size_t>(t)]));
  }
  RecordProperty("largest_difference", std::to_string(worst));
  EXPECT_LT(worst, 2e-3f);
}

TEST(Model, RaggedBatchesGiveWhatSequencesGiveAlone) {
  ThreadPool pool(2);
  // The reference kernels promise it for float weights, too (OpenBLAS sums in an order that depends on the
  // batch).
  const DeviceContext device{&pool, CpuIsa::reference};
  const auto checkpoint = Checkpoint::open(golden("gqa_tied_f32"));
  const auto model = Model::load(*checkpoint, device);
  const auto tokens =
      values_of<int32_t>(SafetensorsFile(golden("gqa_tied_f32_logits.safetensors")), "tokens");
  const std::vector<int32_t> a(tokens.begin(), tokens.begin() + 30);
  const std::vector<int32_t> b(tokens.begin() + 10, tokens.end());
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    Feeder alone(*model, format);
    alone.add_sequence();
    alone.add_sequence();
    const Matrix<float> expected_a = alone.step({0}, {a});
    const Matrix<float> expected_b = alone.step({1}, {b});

    Feeder mixed(*model, format);
    mixed.add_sequence();
    mixed.add_sequence();
    const auto piece = [](const std::vector<int32_t>& v, size_t begin, size_t end) {
      return std::vector<int32_t>(v.begin() + static_cast<std::ptrdiff_t>(begin),
                                  v.begin() + static_cast<std::ptrdiff_t>(end));
    };
    mixed.step({0}, {piece(a, 0, 7)});
    mixed.step({1, 0}, {piece(b, 0, 17), piece(a, 7, 8)});
    mixed.step({0, 1}, {piece(a, 8, 29), piece(b, 17, 29)});
    const Matrix<float> last = mixed.step({1, 0}, {piece(b, 29, 30), piece(a, 29, 30)});
    for (int64_t c = 0; c < last.cols(); ++c) {
      ASSERT_EQ(last(0, c), expected_b(29, c)) << name_of(format);
      ASSERT_EQ(last(1, c), expected_a(29, c)) << name_of(format);
    }
  }
}

TEST(Model, RefusesTokensAndPositionsOutOfRange) {
  const DeviceContext device;
  const auto checkpoint = Checkpoint::open(golden("gqa_tied_f32"));
  const auto model = Model::load(*checkpoint, device);
  PagedKvCache cache(model->kv_shape(), KvFormat::f16, 1);
  Workspace workspace(device);
  const std::vector<int64_t> slots = {0};
  const int32_t block = 0;
  const SequenceSpan span{0, 1, 1, &block};
  const auto forward = [&](int32_t token, int32_t position) {
    const std::vector<int32_t> tokens = {token}, positions = {position};
    model->forward({tokens, positions, slots, {&span, 1}}, cache, workspace);
  };
  EXPECT_NO_THROW(forward(319, 0));
  EXPECT_THROW(forward(320, 0), Error);
  EXPECT_THROW(forward(-1, 0), Error);
  EXPECT_THROW(forward(0, 1 << 30), Error);
}

TEST(RopeTable, GrowsAsFarAsItIsUsed) {
  ModelConfig config;
  config.head_dim = 8;
  config.rope_theta = 10000.0f;
  config.max_positions = int64_t{1} << 24;
  RopeTable table;
  table.grow(3, config);
  EXPECT_LE(table.positions, 1024);
  const float before = table.cos[2 * 4 + 1];
  EXPECT_EQ(before, static_cast<float>(std::cos(static_cast<double>(2.0f * 0.1f))));
  table.grow(table.positions + 1, config);
  EXPECT_LE(table.positions, 2048);
  EXPECT_EQ(table.cos[2 * 4 + 1], before);
  config.max_positions = table.positions + 1;
  table.grow(config.max_positions, config);
  EXPECT_EQ(table.positions, config.max_positions);
  EXPECT_EQ(table.sin.size(), static_cast<size_t>(4 * config.max_positions));
}

TEST(ModelConfig, NamesTheFieldThatIsWrong) {
  const auto checkpoint = Checkpoint::open(golden("gqa_tied_f32"));
  const auto message = [&](auto change) {
    nlohmann::ordered_json json = checkpoint->config();
    change(json);
    try {
      ModelConfig::from_json(json, "config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto set = [&](const std::string& field, const nlohmann::ordered_json& value) {
    return message([&](auto& json) { json[field] = value; });
  };
  EXPECT_EQ(message([](auto&) {}), "no error");
  for (const std::string field :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    EXPECT_NE(message([&](auto& json) { json.erase(field); }).find(field), std::string::npos) << field;
    for (const nlohmann::ordered_json& bad :
         {nlohmann::ordered_json(0), nlohmann::ordered_json(-4), nlohmann::ordered_json("64"),
          nlohmann::ordered_json(1e30), nlohmann::ordered_json(UINT64_MAX)}) {
      EXPECT_NE(set(field, bad).find(field), std::string::npos) << field << ' ' << bad;
    }
  }
  EXPECT_NE(set("num_key_value_heads", 3).find("num_key_value_heads"), std::string::npos);
  EXPECT_NE(set("head_dim", 15).find("head_dim"), std::string::npos);
  EXPECT_NE(set("hidden_act", "gelu").find("hidden_act"), std::string::npos);
  EXPECT_NE(set("attention_bias", true).find("attention_bias"), std::string::npos);
  EXPECT_NE(set("model_type", "mixtral").find("mixtral"), std::string::npos);
  EXPECT_NE(set("rms_norm_eps", -1).find("rms_norm_eps"), std::string::npos);
  const nlohmann::ordered_json scaling = {{"rope_type", "llama3"}, {"factor", 8.0}};
  EXPECT_NE(set("rope_scaling", scaling).find("rope"), std::string::npos);
  EXPECT_NE(message([&](auto& json) { json["rope_parameters"] = scaling; }).find("rope"), std::string::npos);
}

}  // namespace
}  // namespace atom
