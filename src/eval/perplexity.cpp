#include "eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/interrupt.h"
#include "base/progress.h"
#include "engine/runner.h"

namespace atom {
namespace {

/// Tokens of a step and rows of logits at a time: so many that the weights are read seldom, so few that the
/// activations stay in cache (and the logits, at most 256 * vocab floats, in memory).
constexpr int64_t kStepTokens = 512;
constexpr int64_t kLogitRows = 256;
constexpr int64_t kBlockSize = 16;

/// Sum of the negative log-likelihoods of window[begin + 1 ...], given the residual stream of window[begin
/// ...].
double chunk_nll(Runner& runner, MatrixView<const float> hidden, std::span<const int32_t> targets,
                 std::vector<double>& scratch) {
  double sum = 0.0;
  const auto predicted = static_cast<int64_t>(targets.size());
  for (int64_t begin = 0; begin < predicted; begin += kLogitRows) {
    const int64_t end = std::min(begin + kLogitRows, predicted);
    const auto count = static_cast<size_t>(end - begin);
    scratch.resize(count);
    runner.negative_log_likelihoods(hidden.row_range(begin, end),
                                    targets.subspan(static_cast<size_t>(begin), count), scratch);
    // Summed in order, so that the result does not depend on the threads.
    for (const double nll : scratch) sum += nll;
  }
  return sum;
}

double window_nll(Runner& runner, BlockTable& table, std::span<const int32_t> window,
                  std::vector<double>& scratch) {
  double sum = 0.0;
  const size_t size = window.size();
  for (size_t begin = 0; begin < size; begin += kStepTokens) {
    throw_if_interrupted();
    const size_t end = std::min(begin + kStepTokens, size);
    const Chunk chunk{&table, window.subspan(begin, end - begin)};
    const MatrixView<const float> hidden = runner.step({&chunk, 1});
    // The last token predicts nothing inside of the window.
    const size_t predicted = std::min(end, size - 1) - begin;
    sum += chunk_nll(runner, hidden, window.subspan(begin + 1, predicted), scratch);
  }
  table.clear();
  return sum / static_cast<double>(size - 1);
}

}  // namespace

int64_t default_window(const ModelConfig& config) {
  return std::min<int64_t>(2048, config.max_positions);
}

PerplexityResult perplexity(const Model& model, std::span<const int32_t> tokens,
                            const PerplexityOptions& options) {
  const int64_t window = options.window.value_or(default_window(model.config()));
  const int64_t context = model.config().max_positions;
  require(window >= 2 && window <= context, "window: expected 2 to {} tokens (the model's context), found {}",
          context, window);
  const int64_t available = static_cast<int64_t>(tokens.size()) / window;
  require(available >= 1, "the text has {} tokens, fewer than one window of {}", tokens.size(), window);
  require(!options.windows || *options.windows >= 1, "windows: expected at least 1, found {}",
          options.windows.value_or(0));
  const int64_t windows = std::min(options.windows.value_or(available), available);

  PerplexityResult result;
  result.windows = windows;
  result.window = window;
  result.tokens = windows * window;
  result.kv_format = options.kv_format.value_or(model.kv_format());
  const auto start = std::chrono::steady_clock::now();
  PagedKvCache cache(model.kv_shape(), result.kv_format, (window + kBlockSize - 1) / kBlockSize, kBlockSize,
                     model.device().memory);
  BlockTable table(cache);
  Runner runner(model, cache);
  std::vector<double> scratch;
  Progress progress("perplexity", windows, options.quiet);
  double sum = 0.0;
  for (int64_t i = 0; i < windows; ++i) {
    const auto begin = static_cast<size_t>(i * window);
    sum += window_nll(runner, table, tokens.subspan(begin, static_cast<size_t>(window)), scratch);
    require(std::isfinite(sum), "the logits of window {} are not finite", i);
    progress.update(i + 1, fmt::format("perplexity {:.4f}", std::exp(sum / static_cast<double>(i + 1))));
  }
  progress.finish();
  result.mean_nll = sum / static_cast<double>(windows);
  result.perplexity = std::exp(result.mean_nll);
  require(std::isfinite(result.perplexity),
          "the perplexity is not finite: the mean negative log-likelihood is {}", result.mean_nll);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace atom
