// atom bench engine: tokens a second of the whole engine in several precisions with the same memory.

#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "base/byte_level.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "bench.h"
#include "load_plan.h"
#include "precision.h"
#include "report.h"
#include "shapes.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  DeviceOptions device;
  TrafficOptions traffic;
  /// Empty: one that suits the device.
  std::string model;
  std::vector<std::string> precisions = {"fp16", "w4a4kv4"};
  /// Of weights and cache together. 0: what suits the device.
  uint64_t memory = 0;
  int64_t context = 2048;
  int64_t max_running = 256;
  int64_t max_step_tokens = 2048;
};

/// Random weights answer in random tokens; these are bytes.
text::Tokenizer byte_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_level_encode(std::string(1, static_cast<char>(byte)))] = byte;
  }
  return text::Tokenizer::from_json(
      {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
       {"decoder", {{"type", "ByteLevel"}}},
       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}},
      "bytes");
}

class Counter : public RequestListener {
 public:
  void on_prompt(PromptResult result) override { prompt_tokens += result.prompt_tokens; }
  void on_delta(Delta delta) override {
    tokens += static_cast<int64_t>(delta.tokens.size());
    if (delta.finish_reason) ++finished;
  }
  void on_error(std::string message) override {
    spdlog::error("{}", message);
    ++failed;
  }

  std::atomic<int64_t> prompt_tokens{0}, tokens{0}, finished{0}, failed{0};
};

/// Runs the traffic, all of it there from the beginning. `first`: the output tokens a second of the first
/// precision.
Json measure(const Precision& precision, const ModelConfig& config, const Device& device,
             const Options& options, const std::vector<PlannedRequest>& traffic) {
  const auto model = Model::random(config, precision.quantization, device.context());
  const int64_t per_block = 16 * kv_bytes_per_token(model->kv_shape(), precision.cache);
  EngineOptions engine_options;
  engine_options.context = options.context;
  engine_options.kv_format = precision.cache;
  engine_options.n_blocks = (static_cast<int64_t>(options.memory) - model->weight_bytes()) / per_block;
  engine_options.max_running = options.max_running;
  engine_options.max_step_tokens = options.max_step_tokens;
  // Prompts are not alike, but for those of the warm-up.
  engine_options.prefix_caching = false;
  engine_options.max_waiting = static_cast<int64_t>(traffic.size()) + 1;
  require(engine_options.n_blocks * 16 >= options.context,
          "--memory: {} bytes have no room for weights of {} bytes and a KV cache of {} tokens in {}",
          options.memory, model->weight_bytes(), options.context, precision.name);
  const text::Tokenizer tokenizer = byte_tokenizer();
  Engine engine(*model, tokenizer, engine_options);
  const auto run = [&](size_t first, size_t end) {
    auto counter = std::make_shared<Counter>();
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = first; i < end; ++i) {
      Request request;
      request.prompt = traffic[i].ids;
      request.max_tokens = traffic[i].max_tokens;
      engine.submit(std::move(request), counter);
    }
    while (counter->finished + counter->failed < static_cast<int64_t>(end - first)) {
      throw_if_interrupted();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    require(counter->failed == 0, "{}: {} requests failed", precision.name, counter->failed.load());
    return std::pair(counter, seconds);
  };
  // Memory grows to its size, and steps are recorded.
  run(0, std::min(traffic.size(), static_cast<size_t>(options.max_running)));
  const EngineStats before = engine.stats();
  const auto [counter, seconds] = run(0, traffic.size());
  const EngineStats after = engine.stats();
  const auto steps = static_cast<double>(after.steps - before.steps);
  return {
      {"precision", precision.name},
      {"kv_cache", name_of(precision.cache)},
      {"weight_bytes", model->weight_bytes()},
      {"cache_tokens", engine_options.n_blocks * 16},
      {"seconds", seconds},
      {"output_tokens_per_second", static_cast<double>(counter->tokens) / seconds},
      {"total_tokens_per_second", static_cast<double>(counter->tokens + counter->prompt_tokens) / seconds},
      {"prompt_tokens", counter->prompt_tokens.load()},
      {"completion_tokens", counter->tokens.load()},
      {"steps", steps},
      {"answers_per_step", static_cast<double>(counter->tokens) / steps},
      {"preemptions", after.preemptions - before.preemptions},
      {"forward_share",
       (after.forward_seconds - before.forward_seconds) / (after.step_seconds - before.step_seconds)}};
}

void run_command(Options options) {
  options.output.apply();
  options.traffic.check();
  const Device device(options.device);
  device.announce();
  if (options.memory == 0) options.memory = uint64_t{device.context().cuda != nullptr ? 24u : 2u} << 30;
  const std::string name = !options.model.empty() ? options.model : default_model(device.context());
  const ModelConfig config = model_shape(name).config;
  require(options.context <= config.max_positions, "--context: {} takes at most {} tokens, found {}", name,
          config.max_positions, options.context);
  std::vector<Precision> precisions;
  for (const std::string& precision : options.precisions)
    precisions.push_back(precision_of(precision, config));
  TrafficOptions asked = options.traffic;
  asked.random_ids = config.vocab;
  const std::vector<PlannedRequest> traffic = plan_traffic(asked, 1, 0).front();
  Json json = describe_run("engine", device);
  json["exact"] = device.context().exact;
  json["model"] = name;
  json["memory_bytes"] = options.memory;
  json["max_running"] = options.max_running;
  json["max_step_tokens"] = options.max_step_tokens;
  json["requests"] = traffic.size();
  double first = 0;
  for (const Precision& precision : precisions) {
    throw_if_interrupted();
    Json result = measure(precision, config, device, options, traffic);
    const double rate = result["output_tokens_per_second"];
    if (first == 0) first = rate;
    result["times_as_fast_as_first"] = rate / first;
    if (!options.output.json) {
      print(fmt::format(
          "{:<10} {:9.1f} out/s {:9.1f} in and out/s {:6.2f}x  cache {:8d} tokens, {:6.1f} answers a step, "
          "{} preemptions, {:.1f}% of the time in forward passes\n",
          precision.name, rate, result["total_tokens_per_second"].get<double>(), rate / first,
          result["cache_tokens"].get<int64_t>(), result["answers_per_step"].get<double>(),
          result["preemptions"].get<uint64_t>(), 100 * result["forward_share"].get<double>()));
    }
    json["results"].push_back(std::move(result));
  }
  if (options.output.json) print_json(json);
}

}  // namespace

void add_bench_engine(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      bench.add_subcommand("engine", "Throughput of the engine in several precisions with the same memory");
  command->footer(
      "Models of random weights, one after the other, each with a KV cache of what its weights leave of "
      "--memory. All "
      "requests are there from the beginning; the engine runs as many at once as the cache holds. No server "
      "is in "
      "between: for that, see `atom bench serve`.\n\n"
      "  atom bench engine --model llama-2-7b --memory 24GB --lengths sharegpt_lengths.json --requests 512 "
      "--fast");
  command->add_option(
      "--model", options->model,
      fmt::format("Shape: {} (default: llama-2-7b on a GPU, smollm2-135m on a CPU)", model_names()));
  command
      ->add_option("--precision", options->precisions,
                   fmt::format("Precisions, the baseline first: {}", kPrecisionHelp))
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--memory", options->memory,
                   "Bytes of weights and cache together (default: 24GB on a GPU, 2GB on a CPU)")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--context", options->context, "Tokens of a prompt and its answer together")
      ->check(at_least(2))
      ->capture_default_str();
  command->add_option("--max-running", options->max_running, "Sequences that run at once, at most")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command->add_option("--max-step-tokens", options->max_step_tokens, "Tokens of a step, at most")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--requests", options->traffic.requests, "Requests")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--lengths", options->traffic.lengths,
                      "JSON array of pairs [prompt tokens, output tokens]");
  command
      ->add_option("--prompt-tokens", options->traffic.prompt_tokens, "Tokens of a prompt, without --lengths")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--max-tokens", options->traffic.max_tokens,
                   "Tokens of an answer (0: 64); with --lengths a bound on what the file says (0: none)")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_command(*options); }; });
}

}  // namespace atom::cli
