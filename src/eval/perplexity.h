#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kvcache/paged_cache.h"
#include "model/model.h"

namespace atom {

struct PerplexityOptions {
  /// Tokens of a window; unset: default_window.
  std::optional<int64_t> window;
  /// Only the first so many windows; unset: all.
  std::optional<int64_t> windows;
  /// Format of the KV cache that attention reads back; unset: the one that the checkpoint is meant for.
  std::optional<KvFormat> kv_format;
  /// No progress bar.
  bool quiet = false;
};

/// The window of the usual protocol, 2048 tokens, or the model's whole context where that is shorter.
int64_t default_window(const ModelConfig& config);

struct PerplexityResult {
  double perplexity = 0;
  /// Mean negative log-likelihood of a predicted token, in nats; its exponential is the perplexity.
  double mean_nll = 0;
  int64_t windows = 0;
  /// Tokens of a window.
  int64_t window = 0;
  /// Tokens that the windows hold.
  int64_t tokens = 0;
  KvFormat kv_format = KvFormat::f16;
  double seconds = 0;
};

/// Perplexity by the usual protocol (GPTQ; Atom, section 5.2): the tokens of the whole text are cut into
/// windows that do not overlap, what is left at the end is dropped, every window is run on its own from
/// position 0, and the tokens 1 ... window - 1 of each are predicted from those before them:
///
///   perplexity = exp( sum over windows of (mean of the window's window - 1 negative log-likelihoods) /
///   windows ).
///
/// Throws Error when there is no whole window, the window is shorter than 2 or longer than the model's
/// context, or the logits are not finite; Interrupted after Ctrl-C.
PerplexityResult perplexity(const Model& model, std::span<const int32_t> tokens,
                            const PerplexityOptions& options);

}  // namespace atom
