#include "model/model.h"

#include <algorithm>
#include <array>
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

/// The golden logits of a tiny model, of all tokens or of `rows`.
struct Golden {
  explicit Golden(const std::string& name) : checkpoint(Checkpoint::open(golden(name))) {
    const SafetensorsFile file(golden(name + "_logits.safetensors"));
    tokens = values_of<int32_t>(file, "tokens");
    logits = values_of<float>(file, "logits");
    if (file.find("rows") != nullptr) {
      rows = values_of<int32_t>(file, "rows");
    } else {
      rows.resize(tokens.size());
      std::iota(rows.begin(), rows.end(), 0);
    }
  }

  /// Largest difference of the logits of tokens [begin, ...) from the golden ones; 0 where there are none.
  float difference(int64_t begin, MatrixView<const float> found) const {
    float worst = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t row = rows[i] - begin;
      if (row < 0 || row >= found.rows) continue;
      for (int64_t c = 0; c < found.cols; ++c) {
        const float error = std::fabs(found(row, c) - logits[i * static_cast<size_t>(found.cols) + c]);
        // NaN is the worst.
        if (!(error <= worst)) worst = error;
      }
    }
    return worst;
  }

  std::unique_ptr<Checkpoint> checkpoint;
  std::vector<int32_t> tokens, rows;
  std::vector<float> logits;
};

constexpr float kTolerance = 2e-4f;

class GoldenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, LogitsEqualTransformers) {
  const Golden expected(GetParam());
  ThreadPool pool(2);
  for (const CpuIsa isa : {CpuIsa::reference, detect_cpu_isa()}) {
    const DeviceContext device{&pool, isa};
    const auto model = Model::load(*expected.checkpoint, device);
    Feeder feeder(*model, KvFormat::f32);
    feeder.add_sequence();
    EXPECT_LT(expected.difference(0, feeder.step({0}, {expected.tokens}).view()), kTolerance) << name_of(isa);
  }
}

/// Two sequences at once, one in chunks and the other token by token from some point on, far past the
/// windows.
TEST_P(GoldenModel, ChunksAndDecodeStepsOfABatchEqualTransformers) {
  const Golden expected(GetParam());
  ThreadPool pool(2);
  const DeviceContext device{&pool, detect_cpu_isa()};
  const auto model = Model::load(*expected.checkpoint, device);
  Feeder feeder(*model, KvFormat::f32);
  const auto n = static_cast<int64_t>(expected.tokens.size());
  std::array<int64_t, 2> done{};
  for (size_t i = 0; i < 2; ++i) feeder.add_sequence();
  for (int64_t step = 0; done[0] < n || done[1] < n; ++step) {
    std::vector<int64_t> sequences, begins;
    std::vector<std::vector<int32_t>> tokens;
    for (int64_t s = 0; s < 2; ++s) {
      int64_t& at = done[static_cast<size_t>(s)];
      const int64_t count = std::min(n - at, s == 0 ? 1 + step % 23 : step == 0 ? 17 : 1);
      if (count == 0) continue;
      sequences.push_back(s);
      begins.push_back(at);
      tokens.emplace_back(expected.tokens.begin() + at, expected.tokens.begin() + at + count);
      at += count;
    }
    const Matrix<float> logits = feeder.step(sequences, tokens);
    int64_t row = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto count = static_cast<int64_t>(tokens[i].size());
      ASSERT_LT(expected.difference(begins[i], logits.view().row_range(row, row + count)), kTolerance)
          << "sequence " << sequences[i] << " from " << begins[i];
      row += count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModel,
                         ::testing::Values("gqa_tied_f32", "mqa_untied_bf16", "mha_wide_heads_f16", "llama2",
                                           "llama3_scaled", "llama_linear", "llama_bias", "llama_yarn_mscale",
                                           "mistral_window", "qwen2", "qwen2_windows", "qwen3",
                                           "qwen3_layer_types"),
                         [](const auto& model) { return std::string(model.param); });

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

}  // namespace
}  // namespace atom
