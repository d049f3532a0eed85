// atom bench attention: attention of one layer over a paged cache.

#include <algorithm>
#include <cmath>
#include <memory>

#include "bench.h"
#include "operands.h"
#include "report.h"
#include "shapes.h"

namespace atom::cli {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr int64_t kMaxContext = int64_t{1} << 20;
constexpr int64_t kMaxBatch = 4096;
constexpr KvFormat kFormats[] = {KvFormat::f16, KvFormat::int8, KvFormat::int4};

struct Options {
  BenchOptions bench;
  std::vector<std::string> models;
  std::vector<int64_t> batches;
  std::vector<int64_t> contexts;
  std::vector<int64_t> prefill;
};

/// `batch` sequences of `context` tokens, of which the last `rows` ask.
struct Shape {
  int64_t batch;
  int64_t context;
  int64_t rows;
};

/// Caches of random contents, as many as it takes to be cold, and queries. Pages are in random order.
class Problem {
 public:
  Problem(const DeviceContext& device, const ModelShape& model, const Shape& shape, KvFormat format)
      : model_(model), shape_(shape) {
    const int64_t pages = (shape.context + kBlockSize - 1) / kBlockSize;
    const int64_t pages_a_copy = shape.batch * pages;
    cache_.format = format;
    cache_.block_size = kBlockSize;
    cache_.n_kv_heads = model.config.n_kv_heads;
    cache_.head_dim = model.config.head_dim;
    const int64_t row = cache_.row_bytes() + (is_quantized(format) ? 4 : 0);
    bytes_ = 2.0 * static_cast<double>(row * model.config.n_kv_heads * shape.context * shape.batch);
    copies_ = cold_copies(device, bytes_, 64);
    cache_.n_blocks = pages_a_copy * copies_;
    const auto rows = static_cast<size_t>(cache_.n_blocks * model.config.n_kv_heads * kBlockSize);
    keys_ = Buffer<std::byte>(rows * static_cast<size_t>(cache_.row_bytes()), device.memory);
    values_ = Buffer<std::byte>(keys_.size(), device.memory);
    cache_.keys = keys_.data();
    cache_.values = values_.data();
    if (is_quantized(format)) {
      key_params_ = Buffer<uint16_t>(2 * rows, device.memory);
      value_params_ = Buffer<uint16_t>(2 * rows, device.memory);
      cache_.key_params = key_params_.data();
      cache_.value_params = value_params_.data();
    }
    random_fill_cache(device, cache_, seed_);
    const int64_t width = model.config.n_heads * model.config.head_dim;
    q_ = random_buffer<float>(device, shape.batch * shape.rows * width, DType::f32, 1.0f, 0.0f, ++seed_);
    out_ = Buffer<float>(q_.size(), device.memory);
    const auto order = random_permutation(Random(++seed_), cache_.n_blocks);
    tables_ = Buffer<int32_t>::copy_of(order, device.memory);
    for (int64_t copy = 0; copy < copies_; ++copy) {
      std::vector<SequenceSpan> spans;
      for (int64_t i = 0; i < shape.batch; ++i) {
        spans.push_back(
            {i * shape.rows, shape.rows, shape.context, tables_.data() + (copy * shape.batch + i) * pages});
      }
      spans_.push_back(Buffer<SequenceSpan>::copy_of(spans, device.memory));
    }
  }

  Attention op(int64_t copy) {
    const int64_t rows = shape_.batch * shape_.rows, width = model_.config.n_heads * model_.config.head_dim;
    return {{q_.data(), rows, width},
            std::as_const(spans_[static_cast<size_t>(copy)]).span(),
            cache_,
            model_.config.n_heads,
            1.0f / std::sqrt(static_cast<float>(model_.config.head_dim)),
            {out_.data(), rows, width},
            shape_.rows,
            shape_.context,
            shape_.rows};
  }

  /// Of the keys and values that are seen.
  double bytes() const { return bytes_; }
  int64_t copies() const { return copies_; }
  double operations() const {
    const double first = static_cast<double>(shape_.context - shape_.rows + 1);
    const double pairs = (first + static_cast<double>(shape_.context)) / 2 * static_cast<double>(shape_.rows);
    return 4.0 * pairs * static_cast<double>(shape_.batch * model_.config.n_heads * model_.config.head_dim);
  }

 private:
  ModelShape model_;
  Shape shape_;
  KvLayerView cache_;
  Buffer<std::byte> keys_, values_;
  Buffer<uint16_t> key_params_, value_params_;
  Buffer<float> q_, out_;
  Buffer<int32_t> tables_;
  std::vector<Buffer<SequenceSpan>> spans_;
  double bytes_ = 0;
  int64_t copies_ = 1;
  uint64_t seed_ = 0;
};

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

std::vector<Measured> work_for(const DeviceContext& device, const ModelShape& model, const Shape& shape) {
  std::vector<Measured> work;
  for (const KvFormat format : kFormats) {
    const auto problem = std::make_shared<Problem>(device, model, shape, format);
    // A GPU's kernels of both kinds; a CPU has one.
    for (const bool exact : {false, true}) {
      if (exact && device.cuda == nullptr) continue;
      DeviceContext context = device;
      context.exact = exact;
      Measured measured;
      measured.name = upper(name_of(format)) + (exact ? " exact" : "");
      measured.implementation = select(context, problem->op(0)).name;
      measured.rate = device.cuda != nullptr ? "bf16" : "f32";
      measured.bytes = problem->bytes();
      measured.operations = problem->operations();
      measured.copies = problem->copies();
      measured.launch = [context, problem](int64_t copy) { run(context, problem->op(copy)); };
      work.push_back(std::move(measured));
    }
  }
  return work;
}

void run_attention(Options options) {
  options.bench.output.apply();
  std::vector<ModelShape> models = model_shapes(options.models);
  const Device device(options.bench.device);
  device.announce();
  const DeviceContext& context = device.context();
  const bool gpu = context.cuda != nullptr;
  if (models.empty()) models.push_back(model_shape(default_model(context)));
  const bool all = options.batches.empty() && options.contexts.empty() && options.prefill.empty();
  if (options.batches.empty())
    options.batches = gpu ? std::vector<int64_t>{1, 64} : std::vector<int64_t>{1, 8};
  if (options.contexts.empty() && (all || options.prefill.empty())) {
    options.contexts = gpu ? std::vector<int64_t>{1024, 4096} : std::vector<int64_t>{512, 2048};
  }
  if (all) options.prefill = {gpu ? 4096 : 512};
  Report report(options.bench, device, "attention", "read", {"F16"});
  std::vector<Panel> panels;
  const auto one = [&](const ModelShape& model, const Shape& shape, const char* phase, Panel& panel,
                       int64_t x) {
    const auto timed = measure(context, work_for(context, model, shape), options.bench.seconds);
    report.add({{"model", model.name},
                {"phase", phase},
                {"heads", model.config.n_heads},
                {"kv_heads", model.config.n_kv_heads},
                {"head_dim", model.config.head_dim},
                {"batch", shape.batch},
                {"context", shape.context}},
               timed);
    add_points(panel, static_cast<double>(x), timed, "F16");
  };
  for (const ModelShape& model : models) {
    for (const int64_t batch : options.batches) {
      if (options.contexts.empty()) break;
      Panel panel{fmt::format("{}: decode, batch {}", model.name, batch), {}};
      for (const int64_t n : options.contexts) one(model, {batch, n, 1}, "decode", panel, n);
      panels.push_back(std::move(panel));
    }
    if (options.prefill.empty()) continue;
    Panel panel{model.name + ": prefill of one sequence", {}};
    for (const int64_t n : options.prefill) one(model, {1, n, n}, "prefill", panel, n);
    panels.push_back(std::move(panel));
  }
  if (!options.bench.plot.empty()) write_plot(options.bench.plot, "context", "speedup over F16", panels);
  report.finish();
}

}  // namespace

void add_bench_attention(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("attention", "Attention over a paged KV cache of each format");
  command->footer(
      "`bytes` are those of the cache that is read; shares of bandwidth refer to reading; ratios to the F16 "
      "cache. On "
      "a GPU kernels run as with --fast, and without (`exact`).\n\n"
      "  atom bench attention --model llama-2-7b --batch 64 --context 1024,4096\n"
      "  atom bench attention --model llama-3-8b --prefill 4096 --json");
  command->add_option("--model", options->models, "Heads of these models: " + model_names())->delimiter(',');
  command->add_option("--batch", options->batches, "Sequences that decode together")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxBatch));
  command->add_option("--context", options->contexts, "Tokens of a decoding sequence")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxContext));
  command->add_option("--prefill", options->prefill, "Tokens of a prompt that is processed at once")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxContext));
  options->bench.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_attention(*options); }; });
}

}  // namespace atom::cli
