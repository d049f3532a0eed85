// atom bench gemm: linear layers.

#include <algorithm>
#include <memory>

#include "bench.h"
#include "kernels/cuda_bench.h"
#include "operands.h"
#include "report.h"
#include "shapes.h"

namespace atom::cli {
namespace {

constexpr int64_t kMaxTokens = 16384;
/// Copies of a weight at most: making them takes its time. So small weights come from a cache.
constexpr int64_t kCpuCopies = 16;
constexpr int64_t kGpuCopies = 512;
/// Slower than this, the reference only keeps the others waiting.
constexpr double kReferenceOperations = 1e8;

struct Options {
  BenchOptions bench;
  std::vector<std::string> models;
  std::vector<std::string> shapes;
  std::vector<int64_t> tokens;
};

PreparedWeight clone(const PreparedWeight& w) {
  return {w.n,
          w.layout,
          w.activation_bits,
          w.weight_layout,
          w.values.clone(),
          w.scales.clone(),
          w.outliers.clone(),
          w.outlier_scales.clone(),
          w.outliers_fp16.clone(),
          w.units.clone()};
}

/// A low-bit product and what it reads and writes.
struct LowBitProblem {
  QuantizedActivations x;
  std::vector<PreparedWeight> w;
  Buffer<float> y;
  double weight_bytes = 0;

  LowBitProblem(const DeviceContext& device, const LayerShape& shape, int64_t tokens, int bits)
      : x(device.memory), y(static_cast<size_t>(tokens * shape.n), device.memory) {
    const ChannelLayout layout{shape.k, default_outliers(shape.k), 128, OutlierType::int8, true};
    x.resize(tokens, {layout, bits, 0.9f});
    const auto values = random_buffer<float>(device, tokens * shape.k, DType::f32);
    run(device, ReorderQuantize{{values.data(), tokens, shape.k}, nullptr, &x});
    weight_bytes = static_cast<double>(LowBitWeight{shape.n, layout}.bytes());
    const bool gpu = device.cuda != nullptr;
    const int64_t copies = cold_copies(device, weight_bytes, gpu ? kGpuCopies : kCpuCopies);
    for (int64_t i = 0; i < copies; ++i) {
      w.push_back(gpu || i == 0 ? prepare(device, random_weight(device, shape.n, layout, bits,
                                                                static_cast<uint64_t>(i)))
                                : clone(w.front()));
    }
  }

  LinearLowBit op(int64_t copy) {
    const PreparedWeight& weight = w[static_cast<size_t>(copy)];
    return {&x, &weight, {y.data(), x.tokens(), weight.n}};
  }
};

/// With results of `output`: on a CPU f32.
Measured low_bit(const DeviceContext& device, std::string name, const LayerShape& shape, int64_t tokens,
                 int bits, DType output = DType::f32) {
  const auto problem = std::make_shared<LowBitProblem>(device, shape, tokens, bits);
  Measured measured;
  measured.name = std::move(name);
  measured.implementation = select(device, problem->op(0)).name;
  measured.rate = device.cuda != nullptr ? "int8" : "";
  measured.bytes = problem->weight_bytes;
  measured.operations = 2.0 * static_cast<double>(tokens * shape.n) * static_cast<double>(shape.k);
  measured.copies = static_cast<int64_t>(problem->w.size());
  if (device.cuda != nullptr) {
    measured.launch = [device, problem, output](int64_t copy) {
      cuda_linear_low_bit(device, problem->op(copy), output);
    };
  } else {
    measured.launch = [device, problem](int64_t copy) { run(device, problem->op(copy)); };
  }
  return measured;
}

Measured full_precision(const DeviceContext& device, std::string name, const LayerShape& shape,
                        int64_t tokens, DType dtype) {
  struct Problem {
    Buffer<float> x, y;
    Buffer<uint8_t> w;
  };
  const auto problem = std::make_shared<Problem>();
  const int64_t bytes = shape.n * shape.k * static_cast<int64_t>(size_of(dtype));
  const int64_t copies = cold_copies(device, static_cast<double>(bytes), kCpuCopies);
  problem->x = random_buffer<float>(device, tokens * shape.k, DType::f32);
  problem->y = Buffer<float>(static_cast<size_t>(tokens * shape.n), device.memory);
  problem->w = Buffer<uint8_t>(static_cast<size_t>(bytes * copies), device.memory);
  run(device, RandomFill{problem->w.data(), shape.n * shape.k * copies, dtype, 0.02f, 0.0f, 2});
  const auto op = [problem, shape, tokens, dtype, bytes](int64_t copy) {
    return LinearFloat{MatrixView<const float>(problem->x.data(), tokens, shape.k),
                       dtype,
                       problem->w.data() + bytes * copy,
                       {problem->y.data(), tokens, shape.n}};
  };
  Measured measured;
  measured.name = std::move(name);
  measured.implementation = select(device, op(0)).name;
  measured.rate = "f32";
  measured.bytes = static_cast<double>(bytes);
  measured.operations = 2.0 * static_cast<double>(tokens * shape.n) * static_cast<double>(shape.k);
  measured.copies = copies;
  measured.launch = [device, op](int64_t copy) { run(device, op(copy)); };
  return measured;
}

std::vector<Measured> gpu_work(const DeviceContext& device, const LayerShape& shape, int64_t tokens) {
  std::vector<Measured> work;
  work.push_back(low_bit(device, "W4A4", shape, tokens, 4, DType::bf16));
  work.push_back(low_bit(device, "W4A4 to F32", shape, tokens, 4));
  work.push_back(low_bit(device, "W4A8", shape, tokens, 8, DType::bf16));
  for (Measured& baseline : cuda_gemm_baselines(device, tokens, shape.n, shape.k))
    work.push_back(std::move(baseline));
  return work;
}

/// Every instruction set up to the device's, the best one under the plain name.
std::vector<Measured> cpu_work(const DeviceContext& device, const LayerShape& shape, int64_t tokens) {
  std::vector<Measured> work;
  const double operations = 2.0 * static_cast<double>(tokens * shape.n) * static_cast<double>(shape.k);
  for (int isa = static_cast<int>(device.isa); isa >= 0; --isa) {
    DeviceContext level = device;
    level.isa = static_cast<CpuIsa>(isa);
    const bool best = level.isa == device.isa;
    if (!best && level.isa == CpuIsa::reference && operations > kReferenceOperations) continue;
    for (const int bits : {4, 8}) {
      const std::string name = fmt::format("W4A{}", bits);
      work.push_back(
          low_bit(level, best ? name : fmt::format("{} {}", name, name_of(level.isa)), shape, tokens, bits));
    }
  }
  work.push_back(full_precision(device, "F32", shape, tokens, DType::f32));
  work.push_back(full_precision(device, "F16", shape, tokens, DType::f16));
  return work;
}

/// Adds the times of a layer to those of its model.
void add_times(std::vector<Timed>& sum, const std::vector<Timed>& layer) {
  if (sum.empty()) {
    sum = layer;
    return;
  }
  std::erase_if(sum, [&](const Timed& t) { return find(layer, t.what.name) == nullptr; });
  for (Timed& t : sum) t.seconds += find(layer, t.what.name)->seconds;
}

void run_gemm(Options options) {
  options.bench.output.apply();
  std::vector<ModelShape> models = model_shapes(options.models);
  std::vector<LayerShape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(parse_shape(text));
  const Device device(options.bench.device);
  device.announce();
  const DeviceContext& context = device.context();
  const bool gpu = context.cuda != nullptr;
  if (models.empty() && shapes.empty()) models.push_back(model_shape(default_model(context)));
  if (options.tokens.empty()) {
    options.tokens =
        gpu ? std::vector<int64_t>{1, 16, 64, 128, 256, 1024, 4096} : std::vector<int64_t>{1, 16, 64};
  }
  for (const LayerShape& shape : shapes) {
    if (gpu && (shape.k % 128 != 0 || shape.n % 16 != 0)) {
      throw UsageError(
          fmt::format("--shape {}: on a GPU N must be a multiple of 16 and K of 128", shape.name));
    }
  }
  for (const ModelShape& model : models) {
    if (gpu && model.config.hidden % 128 != 0) {
      throw UsageError(fmt::format("--model {}: its shapes are too small for a GPU's kernels", model.name));
    }
  }
  const std::vector<std::string> baselines =
      gpu ? std::vector<std::string>{"BF16", "FP8"} : std::vector<std::string>{"F32"};
  Report report(options.bench, device, "gemm", "read", baselines);
  const auto time = [&](const LayerShape& shape, int64_t tokens) {
    return measure(context, gpu ? gpu_work(context, shape, tokens) : cpu_work(context, shape, tokens),
                   options.bench.seconds);
  };
  std::vector<Panel> panels;
  for (const ModelShape& model : models) {
    Panel panel{model.name + ": the linear layers of a decoder layer", {}};
    for (const int64_t tokens : options.tokens) {
      std::vector<Timed> sum;
      for (const LayerShape& shape : model.layers()) {
        const auto timed = time(shape, tokens);
        report.add({{"model", model.name},
                    {"layer", shape.name},
                    {"n", shape.n},
                    {"k", shape.k},
                    {"tokens", tokens}},
                   timed);
        add_times(sum, timed);
      }
      report.add_sum({{"model", model.name}, {"tokens", tokens}}, sum);
      add_points(panel, static_cast<double>(tokens), sum, baselines.front());
    }
    panels.push_back(std::move(panel));
  }
  for (const LayerShape& shape : shapes) {
    Panel panel{shape.name, {}};
    for (const int64_t tokens : options.tokens) {
      const auto timed = time(shape, tokens);
      report.add({{"n", shape.n}, {"k", shape.k}, {"tokens", tokens}}, timed);
      add_points(panel, static_cast<double>(tokens), timed, baselines.front());
    }
    panels.push_back(std::move(panel));
  }
  if (!options.bench.plot.empty()) {
    write_plot(options.bench.plot, "tokens", "speedup over " + baselines.front(), panels);
  }
  report.finish();
}

}  // namespace

void add_bench_gemm(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("gemm", "Linear layers");
  command->footer(
      "`bytes` are those of the weights, scales included; shares of bandwidth refer to reading. On a GPU the "
      "baselines are cuBLASLt's products (the fastest of the algorithms that it proposes) and a W4A16 "
      "kernel; all write 16-bit floats, `W4A4 to F32` floats, as models use it. On a CPU, F32 is "
      "OpenBLAS.\n\n"
      "  atom bench gemm --model llama-2-7b,llama-3-8b --tokens 1,16,64\n"
      "  atom bench gemm --shape 4096x4096 --tokens 1,4096 --json --plot gemm.svg");
  command->add_option("--model", options->models, "Shapes of these models, summed: " + model_names())
      ->delimiter(',');
  command->add_option("--shape", options->shapes, "Single layers, as NxK (outputs x inputs)")->delimiter(',');
  command
      ->add_option("--tokens", options->tokens,
                   "Numbers of tokens (default: 1 to 4096 on a GPU, to 64 on a CPU)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxTokens));
  options->bench.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_gemm(*options); }; });
}

}  // namespace atom::cli
