#include "cache_size.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "base/error.h"
#include "kernels/cuda.h"
#include "kvcache/paged_cache.h"

namespace atom::cli {
namespace {

constexpr double kMiB = 1 << 20;

/// A number alone in a file; none when there is another word ("max") or no file.
std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

/// MemAvailable of /proc/meminfo, in bytes.
int64_t available_on_host() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib << 10;
    std::getline(file, unit);
  }
  return std::numeric_limits<int64_t>::max();
}

/// What the control group (version 2) of a container leaves; that of a process outside of one has no limit.
int64_t available_in_group() {
  const auto limit = number_in("/sys/fs/cgroup/memory.max");
  const auto used = number_in("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(0, *limit - *used);
}

}  // namespace

int64_t memory_for_cache(const DeviceContext& device) {
  if (device.cuda == nullptr) return std::min(available_on_host(), available_in_group());
  // Activations, logits and what the libraries allocate at their first use.
  constexpr int64_t kLeastReserve = int64_t{1} << 30;
  const CudaMemoryInfo info = cuda_memory_info(device);
  const int64_t reserve = std::max(kLeastReserve, static_cast<int64_t>(info.total / 16));
  return std::max<int64_t>(0, static_cast<int64_t>(info.free) - reserve);
}

void size_cache(const Model& model, const CacheSize& size, EngineOptions& options) {
  const int64_t per_token = kv_bytes_per_token(model.kv_shape(), options.kv_format);
  const int64_t memory = memory_for_cache(model.device());
  const int64_t fit = memory / per_token;
  const int64_t limit = model.config().max_positions;
  require(options.context <= limit, "--context: expected at most {} tokens (the model's limit), found {}",
          limit, options.context);
  const int64_t longest = options.context > 0 ? options.context : limit;
  int64_t tokens = 0;
  if (size.tokens) {
    tokens = *size.tokens;
  } else if (size.bytes) {
    tokens = static_cast<int64_t>(*size.bytes / static_cast<uint64_t>(per_token));
  } else {
    const int64_t share = model.device().cuda == nullptr ? 4 : 1;
    // In this order nothing overflows.
    tokens = longest > fit / share / options.max_running ? fit / share : longest * options.max_running;
    tokens = std::max(tokens, std::min(longest, fit));
  }
  require(
      tokens <= fit,
      "no memory for a KV cache of {} tokens ({:.1f} MiB in {}): {} tokens would fit in the {:.1f} MiB that "
      "are left (--cache-tokens, or a smaller --kv-cache)",
      tokens, static_cast<double>(tokens) * static_cast<double>(per_token) / kMiB, name_of(options.kv_format),
      fit, static_cast<double>(memory) / kMiB);
  // Whole blocks, up rather than down: somebody who asks for 1000 tokens gets them.
  options.n_blocks = (tokens + options.block_size - 1) / options.block_size;
  const int64_t room = options.n_blocks * options.block_size;
  if (options.context == 0) options.context = std::min(limit, room);
  require(options.context >= 2 && options.context <= room,
          "a KV cache of {} tokens has no room for a context of {} (--context, --cache-tokens)", room,
          options.context);
}

}  // namespace atom::cli
