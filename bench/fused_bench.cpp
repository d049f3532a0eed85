// The fused ops: every op and instruction set of this processor, 1 to 512 tokens of 576 (SmolLM2) and 4,096
// (Llama) channels; the RoPE rows have 9 + 2 * 3 heads of 64 and 32 + 2 * 8 heads of 128. GB_per_s counts
// what has to be read and written once (activations, caches; not the weights and tables that stay in cache).
// vs_reference is the time of the scalar reference over this one's, vs_unfused that of the norm (or SiLU) and
// the quantization as two ops of the same instruction set, both measured in the same run.
// ATOM_BENCH_THREADS sets the number of threads.
//   atom_bench --benchmark_filter='fused/rms_norm_quantize/'

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/random.h"
#include "kernels/ops.h"

namespace atom {
namespace {

constexpr CpuIsa kLevels[] = {CpuIsa::avx512, CpuIsa::avx2, CpuIsa::reference};
constexpr int64_t kTokens[] = {1, 16, 64, 512};
constexpr int64_t kWidths[] = {576, 4096};

ThreadPool& pool() {
  static ThreadPool threads([] {
    const char* asked = std::getenv("ATOM_BENCH_THREADS");
    const int n = asked != nullptr ? std::atoi(asked) : static_cast<int>(std::thread::hardware_concurrency());
    return std::max(n, 1);
  }());
  return threads;
}

Matrix<float> random_floats(int64_t rows, int64_t cols) {
  Random random(1);
  Matrix<float> m(rows, cols);
  for (float& x : m.span()) x = static_cast<float>(random.uniform() - 0.5);
  return m;
}

/// Inputs and outputs of all ops for one shape.
struct Workload {
  Workload(int64_t tokens_, int64_t width)
      : tokens(tokens_),
        k(width),
        spec{{width, width == 576 ? 64 : 128, 128, OutlierType::int8, true}, 4, 0.9f},
        x(random_floats(tokens, 2 * width)),
        weight(random_floats(1, width)),
        out(random_floats(tokens, width)),
        permutation(random_permutation(Random(2), width)),
        drawn(static_cast<size_t>(tokens)),
        params(static_cast<size_t>(tokens), {.temperature = 0.7f, .top_p = 0.9f}),
        sums(static_cast<size_t>(tokens)) {
    for (size_t t = 0; t < params.size(); ++t) params[t].random = random_word(1, t);
    quantized.resize(tokens, spec);
    for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(t * 7 % kVocabulary));
    table = Buffer<uint16_t>(static_cast<size_t>(kVocabulary * width));
    head_dim = width == 576 ? 64 : 128;
    n_heads = width / head_dim;
    n_kv_heads = width == 576 ? 3 : 8;
    cos = random_floats(tokens, head_dim / 2);
    sin = random_floats(tokens, head_dim / 2);
    // True angles: the same heads are turned again and again, and must neither grow nor vanish.
    for (float& angle : cos.span()) angle = std::cos(angle);
    for (float& angle : sin.span()) angle = std::sin(angle);
    const int64_t blocks = (tokens + kBlockSize - 1) / kBlockSize;
    const auto rows = static_cast<size_t>(blocks * kBlockSize * n_kv_heads);
    keys = Buffer<std::byte>(rows * static_cast<size_t>(head_dim) * 4);
    values = Buffer<std::byte>(keys.size());
    key_params = Buffer<uint16_t>(2 * rows);
    value_params = Buffer<uint16_t>(2 * rows);
    for (int64_t t = 0; t < tokens; ++t) {
      positions.push_back(static_cast<int32_t>(t));
      slots.push_back(t);
    }
  }

  MatrixView<const float> input() const { return x.view().col_range(0, k); }

  RopeAppend rope(KvFormat format, bool rotate) {
    const int64_t kv = n_kv_heads * head_dim;
    const auto blocks = static_cast<int64_t>(key_params.size()) / (2 * n_kv_heads * kBlockSize);
    return {out.view(),
            x.view().col_range(0, kv),
            std::as_const(x).view().col_range(kv, 2 * kv),
            positions,
            slots,
            cos.data(),
            sin.data(),
            rotate,
            {format, blocks, kBlockSize, n_kv_heads, head_dim, keys.data(), values.data(), key_params.data(),
             value_params.data()}};
  }

  static constexpr int64_t kVocabulary = 4096;
  static constexpr int64_t kBlockSize = 16;
  int64_t tokens, k;
  ActivationSpec spec;
  Matrix<float> x, weight, out;
  std::vector<int32_t> permutation, ids, positions, drawn;
  std::vector<SampleParams> params;
  std::vector<double> sums;
  std::vector<int64_t> slots;
  QuantizedActivations quantized;
  Buffer<uint16_t> table;
  int64_t head_dim = 0, n_heads = 0, n_kv_heads = 0;
  Matrix<float> cos, sin;
  Buffer<std::byte> keys, values;
  Buffer<uint16_t> key_params, value_params;
};

using Action = std::function<void(const DeviceContext&, Workload&)>;

struct Case {
  const char* name;
  /// Bytes that a token moves.
  std::function<double(const Workload&)> bytes;
  Action action;
  /// The same work as separate ops, empty where there is no such thing.
  Action unfused;
};

std::vector<Case> cases() {
  const auto floats = [](double reads_and_writes) {
    return [=](const Workload& w) { return 4.0 * reads_and_writes * static_cast<double>(w.k); };
  };
  // Read floats, write a byte a channel.
  const auto to_bytes = [](double reads) {
    return [=](const Workload& w) { return (4.0 * reads + 1) * static_cast<double>(w.k); };
  };
  const auto rope_bytes = [](KvFormat format) {
    return [=](const Workload& w) {
      const auto kv = static_cast<double>(w.n_kv_heads * w.head_dim);
      return 8.0 * static_cast<double>(w.k) + 12 * kv + 2 * kv * bits_of(format) / 8;
    };
  };
  const auto rope = [](KvFormat format, bool rotate) {
    return [=](const DeviceContext& device, Workload& w) { run(device, w.rope(format, rotate)); };
  };
  const Action quantize = [](const DeviceContext& device, Workload& w) {
    run(device, ReorderQuantize{std::as_const(w.out).view(), w.permutation.data(), &w.quantized});
  };
  const Action norm = [](const DeviceContext& device, Workload& w) {
    run(device, RmsNorm{w.input(), w.weight.data(), 1e-5f, w.out.view()});
  };
  const Action silu = [](const DeviceContext& device, Workload& w) {
    run(device, SiluMul{std::as_const(w.x).view(), w.out.view()});
  };
  return {
      {"embedding_lookup_f16",
       [](const Workload& w) { return 6.0 * static_cast<double>(w.k); },
       [](const DeviceContext& device, Workload& w) {
         run(device, EmbeddingLookup{w.ids, DType::f16, w.table.data(), w.out.view()});
       },
       {}},
      {"rms_norm", floats(2), norm, {}},
      {"add_bias",
       floats(2),
       [](const DeviceContext& device, Workload& w) {
         run(device, AddBias{w.out.view(), w.weight.data()});
       },
       {}},
      {"head_norm",
       floats(2),
       [](const DeviceContext& device, Workload& w) {
         run(device, HeadNorm{w.out.view(), w.head_dim, w.weight.data(), 1e-5f});
       },
       {}},
      {"rms_norm_quantize", to_bytes(1),
       [](const DeviceContext& device, Workload& w) {
         run(device, RmsNormQuantize{w.input(), w.weight.data(), 1e-5f, w.permutation.data(), &w.quantized});
       },
       [=](const DeviceContext& device, Workload& w) {
         norm(device, w);
         quantize(device, w);
       }},
      {"reorder_quantize", to_bytes(1), quantize, {}},
      {"silu_mul", floats(3), silu, {}},
      {"silu_mul_quantize", to_bytes(2),
       [](const DeviceContext& device, Workload& w) {
         run(device, SiluMulQuantize{std::as_const(w.x).view(), &w.quantized});
       },
       [=](const DeviceContext& device, Workload& w) {
         silu(device, w);
         run(device, ReorderQuantize{std::as_const(w.out).view(), nullptr, &w.quantized});
       }},
      {"log_sum_exp",
       floats(2),
       [](const DeviceContext& device, Workload& w) {
         run(device, LogSumExp{std::as_const(w.x).view(), w.sums});
       },
       {}},
      {"sample_top_p",
       floats(2),
       [](const DeviceContext& device, Workload& w) {
         run(device, Sample{std::as_const(w.x).view(), w.params, w.drawn});
       },
       {}},
      {"rope_append_f16", rope_bytes(KvFormat::f16), rope(KvFormat::f16, false), {}},
      {"rope_append_int8", rope_bytes(KvFormat::int8), rope(KvFormat::int8, false), {}},
      {"rope_append_int4", rope_bytes(KvFormat::int4), rope(KvFormat::int4, false), {}},
      {"rope_append_int4_hadamard", rope_bytes(KvFormat::int4), rope(KvFormat::int4, true), {}},
  };
}

/// Seconds of the fastest of several runs, at least 20 ms of them.
double seconds_of(const std::function<void()>& action) {
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity();
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    action();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() - begin < std::chrono::milliseconds(20));
  return best;
}

void measure(benchmark::State& state, const Case& c, int64_t width, int64_t tokens, CpuIsa level) {
  Workload workload(tokens, width);
  const DeviceContext device{&pool(), level};
  for (auto _ : state) c.action(device, workload);

  const double bytes = c.bytes(workload) * static_cast<double>(tokens);
  state.counters["GB_per_s"] =
      benchmark::Counter(bytes * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  const double own = seconds_of([&] { c.action(device, workload); });
  if (level != CpuIsa::reference) {
    static std::map<std::string, double> reference;
    const auto [entry, fresh] = reference.try_emplace(std::string(c.name) + '/' + std::to_string(width) +
                                                      '/' + std::to_string(tokens));
    if (fresh) entry->second = seconds_of([&] { c.action({&pool(), CpuIsa::reference}, workload); });
    state.counters["vs_reference"] = entry->second / own;
  }
  if (c.unfused) state.counters["vs_unfused"] = seconds_of([&] { c.unfused(device, workload); }) / own;
}

const bool kRegistered = [] {
  for (const Case& c : cases()) {
    for (const int64_t width : kWidths) {
      for (const int64_t tokens : kTokens) {
        for (const CpuIsa level : kLevels) {
          if (level > detect_cpu_isa()) continue;
          const std::string name = std::string("fused/") + c.name + "/k:" + std::to_string(width) +
                                   "/tokens:" + std::to_string(tokens) + '/' + name_of(level);
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            measure(state, c, width, tokens, level);
          })->UseRealTime();
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace atom
