// atom bench decode: time of a decode step of whole models of random weights, in several precisions.

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/interrupt.h"
#include "bench.h"
#include "engine/runner.h"
#include "kernels/random_operands.h"
#include "precision.h"
#include "report.h"
#include "shapes.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  DeviceOptions device;
  /// Empty: one that suits the device.
  std::string model;
  std::vector<std::string> precisions = {"fp16", "w4a4kv4"};
  int64_t batch = 64;
  int64_t context = 1024;
  int64_t steps = 20;
  int64_t layers = 0;
};

/// A model with a cache that holds `context` random tokens of each of `batch` sequences.
class Subject {
 public:
  Subject(const Precision& precision, const ModelConfig& config, const DeviceContext& device,
          const Options& options)
      : name(precision.name),
        model_(Model::random(config, precision.quantization, device)),
        cache_(model_->kv_shape(), precision.cache, options.batch * blocks_of(options.context + 1),
               kBlockSize, device.memory),
        runner_(*model_, cache_),
        context_(options.context) {
    uint64_t seed = 0;
    for (int64_t i = 0; i < model_->config().n_layers; ++i) random_fill_cache(device, cache_.layer(i), seed);
    std::vector<int64_t> slots;
    for (int64_t i = 0; i < options.batch; ++i) {
      tables_.push_back(std::make_unique<BlockTable>(cache_));
      tables_.back()->append(context_, slots);
      tokens_.push_back(static_cast<int32_t>(i % config.vocab));
      // Temperature 0.
      queries_.push_back({.row = i, .draw = true});
    }
    answers_.resize(queries_.size());
  }

  /// One step: the forward pass, logits, the most likely tokens, back on the host. Returns seconds.
  double step() {
    std::vector<Chunk> chunks;
    for (size_t i = 0; i < tables_.size(); ++i) {
      tables_[i]->truncate(context_);
      chunks.push_back({tables_[i].get(), {&tokens_[i], 1}});
    }
    const auto start = std::chrono::steady_clock::now();
    const MatrixView<const float> hidden = runner_.step(chunks);
    runner_.evaluate(hidden, queries_, answers_);
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t i = 0; i < tokens_.size(); ++i) {
      tokens_[i] = answers_[i].token;
      require(tokens_[i] >= 0, "{}: the logits are not finite", name);
    }
    return taken;
  }

  std::string kv_cache() const { return std::string(name_of(cache_.format())); }
  int64_t weight_bytes() const { return model_->weight_bytes(); }
  int64_t cache_bytes() const {
    return static_cast<int64_t>(tables_.size()) * context_ *
           kv_bytes_per_token(model_->kv_shape(), cache_.format());
  }

  std::string name;
  std::vector<double> seconds;

 private:
  static constexpr int64_t kBlockSize = 16;
  static int64_t blocks_of(int64_t tokens) { return (tokens + kBlockSize - 1) / kBlockSize; }

  std::unique_ptr<Model> model_;
  PagedKvCache cache_;
  Runner runner_;
  int64_t context_;
  std::vector<std::unique_ptr<BlockTable>> tables_;
  std::vector<int32_t> tokens_;
  std::vector<RowQuery> queries_;
  std::vector<RowAnswer> answers_;
};

void run_command(const Options& options) {
  options.output.apply();
  const Device device(options.device);
  device.announce();
  const std::string name = !options.model.empty() ? options.model : default_model(device.context());
  ModelConfig config = model_shape(name).config;
  if (options.layers > 0) config.n_layers = std::min(options.layers, config.n_layers);
  require(options.context < config.max_positions, "--context: {} takes fewer than {} tokens, found {}", name,
          config.max_positions, options.context);
  std::vector<Precision> precisions;
  for (const std::string& precision : options.precisions) {
    precisions.push_back(precision_of(precision, config));
  }
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const Precision& precision : precisions) {
    throw_if_interrupted();
    subjects.push_back(std::make_unique<Subject>(precision, config, device.context(), options));
  }
  // The first step brings memory to its size, the second runs in it, the third is recorded.
  constexpr int64_t kWarmUp = 4;
  for (int64_t i = 0; i < options.steps + kWarmUp; ++i) {
    throw_if_interrupted();
    for (const auto& subject : subjects) {
      const double seconds = subject->step();
      if (i >= kWarmUp) subject->seconds.push_back(seconds);
    }
  }
  Json json = describe_run("decode", device);
  json["exact"] = device.context().exact;
  json["model"] = name;
  json["layers"] = config.n_layers;
  json["batch"] = options.batch;
  json["context"] = options.context;
  json["steps"] = options.steps;
  const double baseline = median(subjects.front()->seconds);
  for (const auto& subject : subjects) {
    const double seconds = median(subject->seconds);
    json["results"].push_back({{"precision", subject->name},
                               {"kv_cache", subject->kv_cache()},
                               {"seconds_per_step", seconds},
                               {"decode_tokens_per_second", static_cast<double>(options.batch) / seconds},
                               {"times_as_fast_as_first", baseline / seconds},
                               {"weight_bytes", subject->weight_bytes()},
                               {"cache_bytes", subject->cache_bytes()}});
    const std::string line = fmt::format(
        "{:<10} {:8.3f} ms a step {:10.1f} tokens/s {:6.2f}x  weights {:.2f} GB, cache {:.2f} GB\n",
        subject->name, seconds * 1e3, static_cast<double>(options.batch) / seconds, baseline / seconds,
        static_cast<double>(subject->weight_bytes()) / 1e9,
        static_cast<double>(subject->cache_bytes()) / 1e9);
    if (!options.output.json) print(line);
  }
  if (options.output.json) print_json(json);
}

}  // namespace

void add_bench_decode(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("decode", "A decode step of a whole model");
  command->footer(
      "Models of random weights in several precisions take turns; a step is the forward pass of one token of "
      "every sequence, logits, and the most likely tokens brought back to the host. What is printed are "
      "medians, and how many times as fast as the first precision each one is.\n\n"
      "  atom bench decode --model llama-2-7b --batch 64 --context 1024 --fast\n"
      "  atom bench decode --precision fp16,w8a8,fp8,w4a16,w4a8kv4,w4a4kv4 --fast");
  command->add_option(
      "--model", options->model,
      fmt::format("Shape: {} (default: llama-2-7b on a GPU, smollm2-135m on a CPU)", model_names()));
  command
      ->add_option("--precision", options->precisions,
                   fmt::format("Precisions, the baseline first: {}", kPrecisionHelp))
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--batch", options->batch, "Sequences")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of each sequence in the cache")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--steps", options->steps, "Steps to time")->check(at_least(1))->capture_default_str();
  command->add_option("--layers", options->layers, "Only so many layers of the model (default: all)")
      ->check(at_least(1));
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_command(*options); }; });
}

}  // namespace atom::cli
