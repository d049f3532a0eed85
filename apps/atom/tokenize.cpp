// atom tokenize: text to token ids and back.

#include <memory>

#include "base/error.h"
#include "base/mapped_file.h"
#include "common.h"
#include "text/json.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  std::filesystem::path model;
  std::optional<std::string> argument;
  std::optional<std::filesystem::path> file;
  bool decode = false;
  bool no_special = false;
};

std::string read_input(const Options& options) {
  if (options.argument) return *options.argument;
  if (options.file) return read_text_file(*options.file);
  return read_standard_input();
}

/// The ids in `text`, a JSON array of integers.
std::vector<int32_t> parse_ids(const std::string& text, int32_t vocab) {
  const Json json = text::parse_ordered_json(text, "token ids");
  require(json.is_array(), "token ids: expected a JSON array of integers, found {}", printable(text, 40));
  std::vector<int32_t> ids;
  for (const Json& item : json) {
    require(item.is_number_integer() && item.get<double>() >= 0 && item.get<double>() < vocab,
            "token ids: expected integers from 0 to {}, found {}", vocab - 1,
            printable(item.dump(-1, ' ', true), 40));
    ids.push_back(item.get<int32_t>());
  }
  return ids;
}

void run(const Options& options) {
  options.output.apply();
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  const std::string input = read_input(options);
  if (options.decode) {
    const std::string text = tokenizer.decode(parse_ids(input, tokenizer.vocab_size()));
    if (options.output.json) {
      print_json({{"text", text}});
    } else {
      print(text);
    }
    return;
  }
  const std::vector<int32_t> ids = tokenizer.encode(
      input, {.add_special_tokens = !options.no_special, .parse_special = !options.no_special});
  if (options.output.json) {
    print_json({{"tokens", ids.size()}, {"ids", ids}});
  } else {
    print_json(ids);
  }
}

}  // namespace

void add_tokenize(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Turn text into token ids, or ids into text");
  command->footer(
      "Without TEXT and --text, standard input is read. The ids are one JSON array, from 0; --decode takes "
      "such an "
      "array and writes the text, byte for byte, without a line feed at its end. With --json the object has "
      "`tokens` "
      "(their number) and `ids`, or `text`.\n\n"
      "  atom tokenize model.gguf 'Hello world'\n"
      "  atom tokenize model.gguf --text book.txt > ids.json\n"
      "  atom tokenize model.gguf --decode '[19556,905]'");
  add_model_argument(*command, options->model);
  auto* text = command->add_option("TEXT", options->argument, "The text (with --decode: the array of ids)");
  command
      ->add_option("--text", options->file, "Read the text (with --decode: the array of ids) from this file")
      ->excludes(text);
  auto* decode = command->add_flag("--decode", options->decode, "Turn ids into text");
  command
      ->add_flag("--no-special", options->no_special,
                 "Add no special tokens, and take those written in the text for text")
      ->excludes(decode);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
