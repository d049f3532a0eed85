// atom generate: goes on from a prompt.

#include <memory>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "common.h"
#include "conversation.h"
#include "generation_options.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  DeviceOptions device;
  GenerationOptions generation;
  std::filesystem::path model;
  std::optional<std::string> prompt;
  std::optional<std::filesystem::path> prompt_file;
  std::optional<std::string> system;
  bool chat = false;
};

std::vector<int32_t> encode_prompt(const Options& options, const Checkpoint& checkpoint,
                                   const text::Tokenizer& tokenizer) {
  const std::string prompt = options.prompt ? *options.prompt : read_text_file(*options.prompt_file);
  if (!options.chat) return tokenizer.encode(prompt);
  Conversation conversation(checkpoint);
  if (options.system) conversation.add("system", *options.system);
  conversation.add("user", prompt);
  return conversation.encode(tokenizer);
}

void run(const Options& options) {
  options.output.apply();
  options.generation.validate();
  if (!options.prompt && !options.prompt_file)
    throw UsageError("no prompt: give -p TEXT or --prompt-file FILE");
  if (options.system && !options.chat) throw UsageError("--system needs --chat");
  const Device device(options.device);
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  GenerationRequest request = options.generation.request(*checkpoint, tokenizer);
  request.prompt = encode_prompt(options, *checkpoint, tokenizer);
  const auto model = load_model(*checkpoint, device);
  const int64_t wanted = static_cast<int64_t>(request.prompt.size()) + options.generation.max_tokens;
  Generator generator(*model, tokenizer, options.generation.context_for(*model, wanted),
                      options.generation.kv_format.value_or(model->kv_format()));
  const bool stream = !options.output.json;
  const GenerationResult result = generator.generate(request, [&](std::string_view text) {
    if (stream && !text.empty()) print(text);
    return !interrupted();
  });
  if (stream && !result.text.empty() && result.text.back() != '\n') print("\n");
  throw_if_interrupted();
  spdlog::info("{}", statistics_line(result));
  if (!options.output.json) return;
  Json json = {{"model", options.model.string()}, {"text", result.text}};
  add_statistics(json, result);
  json["kv_cache"] = name_of(generator.cache().format());
  json["device"] = device.description();
  json["isa"] = name_of(device.context().isa);
  json["threads"] = device.threads();
  print_json(json);
}

}  // namespace

void add_generate(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("generate", "Go on from a prompt");
  command->footer(
      "The text is streamed to standard output. The steps of choosing a token, in this order: repetition "
      "penalty; logit bias, frequency and presence penalty; the most likely token where the temperature is "
      "0, else temperature, top-k, top-p, min-p and a draw. With --json the "
      "object has text, finish_reason (stop, length), prompt_tokens, completion_tokens, "
      "prefill_tokens_per_second, "
      "decode_tokens_per_second.\n\n"
      "  atom generate model.gguf -p 'The capital of France is' --max-tokens 12\n"
      "  atom generate packed/ --chat -p 'Write a haiku about frost.' --temperature 0.8 --top-p 0.95 --seed "
      "7");
  add_model_argument(*command, options->model);
  auto* prompt = command->add_option("-p,--prompt", options->prompt, "The text to go on from");
  command->add_option("--prompt-file", options->prompt_file, "Read the prompt from this file")
      ->excludes(prompt);
  command->add_flag("--chat", options->chat,
                    "Take the prompt for a user's message and put the model's chat template around it");
  command->add_option("--system", options->system, "The system's message in front of it (with --chat)");
  options->generation.add_to(*command);
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
