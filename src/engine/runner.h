#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/row_evaluator.h"
#include "engine/staged_array.h"
#include "kvcache/paged_cache.h"
#include "model/model.h"

namespace atom {

/// The newest tokens of one sequence in a step: a piece of its prompt (prefill) or its last token (decode).
struct Chunk {
  BlockTable* table;
  std::span<const int32_t> tokens;
};

/// Runs steps of a model over one paged KV cache. A step is a ragged batch: any number of sequences, each
/// with any number of tokens more. The generator passes one sequence, the engine's scheduler many.
class Runner {
 public:
  /// `most_logit_bytes`: of logits at a time.
  Runner(const Model& model, PagedKvCache& cache, int64_t most_logit_bytes = int64_t{256} << 20)
      : model_(&model), cache_(&cache), workspace_(model.device()), evaluator_(model, most_logit_bytes) {}

  /// append() and forward() in one: appends the tokens to the tables and returns the residual stream of all
  /// of them in order, [tokens, hidden] in the device's memory, valid until the next call. The tables are as
  /// before when this throws (a full cache, a token or position out of range).
  MatrixView<const float> step(std::span<const Chunk> chunks);

  /// Makes room for the tokens in the tables: the step that forward() then computes, on whatever thread,
  /// while the tables must not change. Throws Error as step() does; the tables are as before then.
  void append(std::span<const Chunk> chunks);
  MatrixView<const float> forward();

  /// answers[i] for queries[i] about rows of `hidden`, step's result; tokens and rows that they name must
  /// exist. On a GPU nothing but tokens and log-probabilities comes back.
  void evaluate(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                std::span<RowAnswer> answers) {
    evaluator_.evaluate(hidden, queries, answers, workspace_);
  }

  /// out[i] = -log p(targets[i]) after row i of `hidden`, rows of `step`'s result. NaN where the logits are
  /// not finite.
  void negative_log_likelihoods(MatrixView<const float> hidden, std::span<const int32_t> targets,
                                std::span<double> out);

 private:
  void take_back(std::span<const Chunk> chunks);

  const Model* model_;
  PagedKvCache* cache_;
  Workspace workspace_;
  RowEvaluator evaluator_;
  /// Of negative_log_likelihoods.
  Buffer<float> logits_;
  StagedArray<int32_t> targets_;
  StagedArray<double> normalizers_;
  StagedArray<float> picked_;
  // The batch of the step in progress; kept so that a decode step allocates nothing.
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<SequenceSpan> spans_;
};

}  // namespace atom
