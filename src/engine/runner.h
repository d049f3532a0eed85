#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvcache/paged_cache.h"
#include "model/model.h"

namespace atom {

/// The newest tokens of one sequence in a step: a piece of its prompt (prefill) or its last token (decode).
struct Chunk {
  BlockTable* table;
  std::span<const int32_t> tokens;
};

/// What is asked of one row of a step's result: a token drawn after it, or the log-probability of one, or
/// both.
struct RowQuery {
  /// Row of the step's result. Several queries may name the same one.
  int64_t row = 0;
  /// Draw a token as `params` says, from the logits with `changes` applied, of those tokens whose bit is set
  /// in `mask` (bit t % 32 of word t / 32; empty: every token).
  bool draw = false;
  SampleParams params;
  std::span<const LogitChange> changes;
  std::span<const uint32_t> mask;
  /// Log-probability of this token; without one, of the token drawn.
  int32_t target = -1;
  /// How many of the most likely tokens to give with their log-probabilities; -1: no log-probabilities at
  /// all.
  int top = -1;
};

struct RowAnswer {
  /// The token drawn; -1 where no logit is finite.
  int32_t token = -1;
  /// Under the softmax of the logits without changes; NaN where the logits are not finite.
  float logprob = 0;
  /// Most likely first, of equal ones the smallest id.
  std::vector<std::pair<int32_t, float>> top;
};

/// Runs steps of a model over one paged KV cache. A step is a ragged batch: any number of sequences, each
/// with any number of tokens more. The generator passes one sequence; a scheduler would pass many to the same
/// interface.
class Runner {
 public:
  Runner(const Model& model, PagedKvCache& cache)
      : model_(&model), cache_(&cache), workspace_(model.device()) {}

  /// append() and forward() in one: appends the tokens to the tables and returns the residual stream of all
  /// of them in order, [tokens, hidden] in the device's memory, valid until the next call. The tables are as
  /// before when this throws (a full cache, a token or position out of range).
  MatrixView<const float> step(std::span<const Chunk> chunks);

  /// Makes room for the tokens in the tables: the step that forward() then computes, on whatever thread,
  /// while the tables must not change. Throws Error as step() does; the tables are as before then.
  void append(std::span<const Chunk> chunks);
  MatrixView<const float> forward();

  /// answers[i] for queries[i], all on the device that has the logits; computed in pieces where there are
  /// very many rows. `hidden`: step's result.
  void evaluate(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                std::span<RowAnswer> answers);

  /// logits [rows, vocab] of rows of `step`'s result, in the host's memory, valid until the next call.
  MatrixView<float> logits(MatrixView<const float> hidden);

  /// out[i] = the most likely token after row i of `hidden`, the first of equal ones; -1 where no logit is
  /// finite.
  void greedy(MatrixView<const float> hidden, std::span<int32_t> out);

  /// out[i] = a token drawn after row i of `hidden` as params[i] says; -1 where no logit is finite. On a GPU
  /// nothing but the tokens comes back.
  void sample(MatrixView<const float> hidden, std::span<const SampleParams> params, std::span<int32_t> out);

  /// out[i] = -log p(targets[i]) after row i of `hidden`, rows of `step`'s result. NaN where the logits are
  /// not finite.
  void negative_log_likelihoods(MatrixView<const float> hidden, std::span<const int32_t> targets,
                                std::span<double> out);

 private:
  /// As logits(), in the device's memory.
  MatrixView<float> device_logits(MatrixView<const float> hidden);
  void take_back(std::span<const Chunk> chunks);

  const Model* model_;
  PagedKvCache* cache_;
  Workspace workspace_;
  Buffer<float> logits_;
  /// On a GPU: copies of its results, and of what it is asked.
  Buffer<float> host_logits_;
  Buffer<int32_t> tokens_out_;
  Buffer<SampleParams> sample_params_;
  // The batch of the step in progress; kept so that a decode step allocates nothing.
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<SequenceSpan> spans_;
};

}  // namespace atom
