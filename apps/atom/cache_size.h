#pragma once

#include <cstdint>
#include <optional>

#include "engine/engine.h"
#include "model/model.h"

namespace atom::cli {

/// How much of the KV cache a server shall have; what is unset follows from the memory that there is.
struct CacheSize {
  std::optional<int64_t> tokens;
  std::optional<uint64_t> bytes;
};

/// Bytes of memory that can still be had for the cache: of the GPU's beside what steps take, or of the
/// host's, within the limits of the process's control group.
int64_t memory_for_cache(const DeviceContext& device);

/// Fills in `context` (0: the model's own, where the cache has room for it) and `n_blocks` of `options`. The
/// default on a CPU: a quarter of the memory that there is; on a GPU all that is left; never more than
/// max_running sequences of full length. Throws Error for a cache that memory has no room for, or that has no
/// room for one sequence; it says how many tokens would fit.
void size_cache(const Model& model, const CacheSize& size, EngineOptions& options);

}  // namespace atom::cli
