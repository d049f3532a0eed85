#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/testing/temp_dir.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/testing/tiny_gguf.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace atom {

/// A random model of two layers on one thread and the reference kernels, whose results do not depend on the
/// batch.
struct TinyModel {
  explicit TinyModel(const test_support::TinyLlama& shape = {}) {
    device.pool = &pool;
    checkpoint = Checkpoint::open(files.write("tiny.gguf", test_support::make_tiny_gguf(shape)));
    model = Model::load(*checkpoint, device);
    tokenizer.emplace(
        text::Tokenizer::from_json(nlohmann::json(checkpoint->tokenizer_json()), "tiny tokenizer"));
  }

  std::vector<int32_t> random_tokens(size_t count, uint64_t seed = 1) const {
    Random random(seed);
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) {
      token = static_cast<int32_t>(random.below(static_cast<uint64_t>(model->config().vocab)));
    }
    return tokens;
  }

  /// Logits [rows, vocab] of rows of a step's result.
  Matrix<float> logits(MatrixView<const float> hidden) const {
    Matrix<float> out(hidden.rows, model->config().vocab);
    Workspace workspace(device);
    model->logits(hidden, out.view(), workspace);
    return out;
  }

  test_support::TempDir files;
  ThreadPool pool{1};
  DeviceContext device;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  std::optional<text::Tokenizer> tokenizer;
};

}  // namespace atom
