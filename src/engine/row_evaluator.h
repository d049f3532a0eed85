#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/staged_array.h"
#include "model/model.h"

namespace atom {

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
  /// Log-probability of this token; without one (-1), of the token drawn.
  int32_t target = -1;
  /// How many of the most likely tokens to give with their log-probabilities, at most kMaxTopColumns; -1: no
  /// log-probabilities at all.
  int top = -1;
};

struct RowAnswer {
  /// The token drawn; -1 where no logit is finite, and where none was asked for.
  int32_t token = -1;
  /// Under the softmax of the logits without changes, where asked for; NaN where the logits are not finite,
  /// and where there is neither a target nor a token drawn.
  float logprob = 0;
  /// Most likely first, of equal ones the smallest id; fewer than asked for where fewer logits are finite.
  std::vector<std::pair<int32_t, float>> top;
};

/// Answers queries about rows of a step's result by a fixed number of ops, however many rows there are: a
/// gather of the rows, logits, their normalizers and largest columns, changes and masks, draws. Each answer
/// is what the query would get alone.
class RowEvaluator {
 public:
  /// `most_bytes`: of logits at a time, at least one query's; more queries are answered in pieces.
  RowEvaluator(const Model& model, int64_t most_bytes) : model_(&model), most_bytes_(most_bytes) {}

  /// answers[i] for queries[i]. hidden [rows, hidden]: a step's result. Tokens and rows that queries name
  /// must exist.
  void evaluate(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                std::span<RowAnswer> answers, Workspace& workspace);

 private:
  /// Rows of logits. One query has one, but where log-probabilities are wanted of logits that are changed
  /// before the draw, it has two, raw and changed. They are ordered so that every op sees a range of rows:
  ///
  ///     [plain | raw | scored draw | draw | changed draw | changed copy of raw]
  ///     |<------- scored -------->|                                             log-probabilities
  ///                   |<----------------------- drawn ------------------------>|
  ///                                      |<------------ changed ------------->|
  ///     |<--------------------- computed ------------------->|
  enum Kind { kPlain, kRaw, kScoredDraw, kDraw, kChangedDraw, kKinds };

  static bool wants_logits(const RowQuery& query) { return query.draw || query.top >= 0; }
  static bool is_changed(const RowQuery& query) { return !query.changes.empty() || !query.mask.empty(); }
  static Kind kind_of(const RowQuery& query);

  /// As many of the queries from `begin` on as fit; returns the first one left over. Fills order_.
  size_t plan(std::span<const RowQuery> queries, size_t begin);
  /// The query that a row of logits belongs to.
  size_t query_of(int64_t row) const;
  void evaluate_piece(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                      std::span<RowAnswer> answers, Workspace& workspace);
  MatrixView<const float> gather(MatrixView<const float> hidden, std::span<const RowQuery> queries);
  void score(MatrixView<const float> logits, std::span<const RowQuery> queries);
  void change(MatrixView<float> logits, std::span<const RowQuery> queries);
  void draw(MatrixView<const float> logits, std::span<const RowQuery> queries, std::span<RowAnswer> answers);
  void pick(MatrixView<const float> logits, std::span<const RowQuery> queries, std::span<RowAnswer> answers);

  const Model* model_;
  int64_t most_bytes_;
  /// The queries of a piece in the order of their rows of logits; ends_[kind]: where those of a kind end.
  std::vector<size_t> order_;
  size_t ends_[kKinds] = {};
  /// The largest `top` of the piece.
  int64_t most_top_ = 0;

  Buffer<float> gathered_, logits_;
  StagedArray<int32_t> rows_, first_, mask_of_, tokens_, columns_, top_columns_;
  StagedArray<LogitChange> changes_;
  StagedArray<uint32_t> masks_;
  StagedArray<SampleParams> params_;
  StagedArray<double> normalizers_;
  StagedArray<float> picked_, top_values_;
};

}  // namespace atom
