// Linear layers: OpenBLAS sgemm (the dense baseline), the low-bit kernels of every instruction set that this
// processor has, and the 16-bit float kernel, on SmolLM2's and on Llama's shapes, with as many threads as the
// processor has. GOPS counts a multiply-add as two operations; vs_openblas is the time of the f32 sgemm of
// the same shape and batch, measured in the same run, over this one's.
//   atom_bench --benchmark_filter='linear/.*/gate_up/m:64'

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/random.h"
#include "kernels/ops.h"
#include "tensor/half.h"

namespace atom {
namespace {

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
  int64_t outliers;
};

constexpr Shape kShapes[] = {{"qkv", 960, 576, 64},
                             {"o", 576, 576, 64},
                             {"gate_up", 3072, 576, 64},
                             {"down", 576, 1536, 128},
                             {"llama_o", 4096, 4096, 128}};
constexpr Shape kHead = {"lm_head", 49152, 576, 0};
constexpr int64_t kBatches[] = {1, 8, 32, 64, 512, 2048};
constexpr CpuIsa kLevels[] = {CpuIsa::reference, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512vnni};

ThreadPool& pool() {
  static ThreadPool threads([] {
    const char* asked = std::getenv("ATOM_BENCH_THREADS");
    const int n = asked != nullptr ? std::atoi(asked) : static_cast<int>(std::thread::hardware_concurrency());
    return std::max(n, 1);
  }());
  return threads;
}

double operations(const Shape& shape, int64_t m) {
  return 2.0 * static_cast<double>(shape.n) * static_cast<double>(shape.k) * static_cast<double>(m);
}

std::vector<float> random_floats(int64_t count) {
  Random random(1);
  std::vector<float> values(static_cast<size_t>(count));
  for (auto& v : values) v = static_cast<float>(random.uniform() - 0.5);
  return values;
}

/// A LinearFloat and what it points to.
struct FloatCase {
  std::vector<float> x;
  std::vector<float> w;
  std::vector<uint16_t> w_half;
  std::vector<float> y;
  LinearFloat op;

  FloatCase(const Shape& shape, int64_t m, DType dtype)
      : x(random_floats(m * shape.k)), y(static_cast<size_t>(m * shape.n)) {
    const auto values = random_floats(shape.n * shape.k);
    if (dtype == DType::f32) {
      w = values;
    } else {
      for (const float v : values)
        w_half.push_back(dtype == DType::f16 ? float_to_half(v) : float_to_bfloat16(v));
    }
    const void* data = dtype == DType::f32 ? static_cast<const void*>(w.data()) : w_half.data();
    op = {MatrixView<const float>(x.data(), m, shape.k), dtype, data, {y.data(), m, shape.n}, false};
  }
};

/// A LinearLowBit and what it points to.
struct LowBitCase {
  QuantizedActivations x;
  PreparedWeight w;
  std::vector<float> y;
  LinearLowBit op;

  LowBitCase(const DeviceContext& device, const Shape& shape, int64_t m, int bits)
      : y(static_cast<size_t>(m * shape.n)) {
    const ChannelLayout layout{shape.k, shape.outliers, 128, OutlierType::int8, true};
    Random random(2);
    std::vector<uint8_t> values(static_cast<size_t>(shape.n * layout.k_normal() / 2));
    for (auto& v : values) v = static_cast<uint8_t>(random.next());
    const std::vector<uint16_t> scales(static_cast<size_t>(shape.n * layout.groups()), float_to_half(0.01f));
    std::vector<int8_t> outliers(static_cast<size_t>(shape.n * layout.n_outlier));
    for (auto& v : outliers) v = static_cast<int8_t>(random.next());
    const LowBitWeight weight{shape.n,         layout,        values.data(), scales.data(),
                              outliers.data(), scales.data(), nullptr};
    w = prepare(device, weight, bits);
    x.resize(m, {layout, bits, 1.0f});
    for (int64_t t = 0; t < m; ++t) {
      std::fill_n(x.scales(t), x.scale_stride(), bits == 4 ? 12.0f : 1.0f);
      x.units()[t] = 0.001f;
      std::fill_n(x.sums(t), x.scale_stride(), 0);
      for (int64_t k = 0; k < shape.k; ++k) {
        const bool outlier = k >= layout.k_normal();
        const int v = outlier || bits == 8 ? static_cast<int>(random.below(255)) - 127
                                           : static_cast<int>(random.below(16)) - 8;
        const int64_t at = outlier ? x.outlier_offset() + k - layout.k_normal() : k;
        x.values(t)[at] = static_cast<int8_t>(v);
        x.sums(t)[outlier ? layout.groups() : k / layout.group] += v;
      }
    }
    op = {&x, &w, {y.data(), m, shape.n}, false};
  }
};

/// Seconds of the f32 sgemm, the median of repeated runs; measured once a process.
double baseline_seconds(const Shape& shape, int64_t m) {
  static std::map<std::pair<std::string, int64_t>, double> known;
  const auto key = std::make_pair(std::string(shape.name), m);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const FloatCase c(shape, m, DType::f32);
  const DeviceContext device{&pool(), detect_cpu_isa()};
  std::vector<double> times;
  double total = 0.0;
  for (int i = 0; i < 5 || (total < 0.3 && i < 10000); ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(device, c.op);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return known[key] = times[times.size() / 2];
}

template <class Op>
void measure(benchmark::State& state, const DeviceContext& device, const Shape& shape, int64_t m,
             const Op& op, double weight_bytes) {
  const double baseline = baseline_seconds(shape, m);
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) run(device, op);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                         static_cast<double>(state.iterations());
  state.counters["GOPS"] = operations(shape, m) / seconds * 1e-9;
  state.counters["GB_s"] = weight_bytes / seconds * 1e-9;
  state.counters["vs_openblas"] = baseline / seconds;
  state.SetLabel(select(device, op).name);
}

void bench_float(benchmark::State& state, const Shape& shape, int64_t m, DType dtype, CpuIsa isa) {
  const FloatCase c(shape, m, dtype);
  measure(state, {&pool(), isa}, shape, m, c.op,
          static_cast<double>(shape.n * shape.k) * static_cast<double>(size_of(dtype)));
}

void bench_low_bit(benchmark::State& state, const Shape& shape, int64_t m, int bits, CpuIsa isa) {
  const DeviceContext device{&pool(), isa};
  const LowBitCase c(device, shape, m, bits);
  const auto bytes = c.w.values.size() + c.w.outliers.size() + 2 * c.w.scales.size();
  measure(state, device, shape, m, c.op, static_cast<double>(bytes));
}

std::string name_for(const std::string& kind, const Shape& shape, int64_t m) {
  return "linear/" + kind + "/" + shape.name + "/m:" + std::to_string(m);
}

template <class Body>
void add(const std::string& kind, const Shape& shape, int64_t m, const Body& body) {
  benchmark::RegisterBenchmark(name_for(kind, shape, m).c_str(), body)->UseRealTime()->MinTime(0.2);
}

bool too_slow(const Shape& shape, int64_t m, CpuIsa isa) {
  return isa == CpuIsa::reference && operations(shape, m) > 2e8;
}

void add_shape(const Shape& shape, int64_t m) {
  const CpuIsa best = detect_cpu_isa();
  add("f32", shape, m, [=](benchmark::State& s) { bench_float(s, shape, m, DType::f32, best); });
  for (const CpuIsa isa : kLevels) {
    if (isa > best || too_slow(shape, m, isa)) continue;
    const std::string level = name_of(isa);
    for (const int bits : {4, 8}) {
      add("w4a" + std::to_string(bits) + "/" + level, shape, m,
          [=](benchmark::State& s) { bench_low_bit(s, shape, m, bits, isa); });
    }
  }
}

void add_head(int64_t m) {
  const CpuIsa best = detect_cpu_isa();
  add("f32", kHead, m, [=](benchmark::State& s) { bench_float(s, kHead, m, DType::f32, best); });
  for (const CpuIsa isa : {CpuIsa::avx2, CpuIsa::avx512}) {
    if (isa > best) continue;
    for (const DType dtype : {DType::f16, DType::bf16}) {
      add(dtype == DType::f16 ? std::string("f16/") + name_of(isa) : std::string("bf16/") + name_of(isa),
          kHead, m, [=](benchmark::State& s) { bench_float(s, kHead, m, dtype, isa); });
    }
  }
}

const bool kRegistered = [] {
  for (const int64_t m : kBatches) {
    for (const Shape& shape : kShapes) add_shape(shape, m);
    if (m <= 512) add_head(m);
  }
  return true;
}();

}  // namespace
}  // namespace atom
