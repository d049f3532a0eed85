// atom bench tokenize: how fast text becomes tokens.

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/mapped_file.h"
#include "bench.h"
#include "report.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  std::filesystem::path model;
  std::filesystem::path text;
  int repeats = 5;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run_tokenize(const Options& options) {
  options.output.apply();
  const std::string text = read_text_file(options.text);
  const double begin = now();
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  const double load_seconds = now() - begin;
  std::vector<double> seconds;
  size_t tokens = 0;
  for (int i = 0; i < options.repeats; ++i) {
    const double start = now();
    tokens = tokenizer.encode(text, {.add_special_tokens = false}).size();
    seconds.push_back(now() - start);
  }
  const double best = *std::min_element(seconds.begin(), seconds.end());
  if (options.output.json) {
    Json out = describe_program("tokenize");
    out["text"] = options.text.string();
    out["bytes"] = text.size();
    out["tokens"] = tokens;
    out["load_seconds"] = load_seconds;
    out["seconds"] = best;
    out["megabytes_per_second"] = static_cast<double>(text.size()) / best / 1e6;
    print_json(out);
  } else {
    print(fmt::format("{} bytes, {} tokens: {:.3f} s, {:.1f} MB/s\n", text.size(), tokens, best,
                      static_cast<double>(text.size()) / best / 1e6));
  }
}

}  // namespace

void add_bench_tokenize(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("tokenize", "Turn a text into tokens, on one thread");
  command->footer(
      "The best of several runs over the text as one piece; loading is `load_seconds` and not part of "
      "`seconds`.\n\n"
      "  atom bench tokenize model.gguf --text book.txt");
  add_model_argument(*command, options->model);
  command->add_option("--text", options->text, "The text")->required();
  command->add_option("--repeats", options->repeats, "Runs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_tokenize(*options); }; });
}

}  // namespace atom::cli
