// atom chat: a conversation with a model, on a terminal or through a pipe.

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <unistd.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
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
  std::optional<std::string> system;
};

/// Tokens of context unless --context says otherwise; the cache is allocated at once, and most chats are
/// short.
constexpr int64_t kDefaultContext = 8192;

// Ctrl-C ends the answer, not the program, so it needs a flag of its own that can be lowered again. A signal
// handler reaches nothing but a flag of static lifetime.
volatile std::sig_atomic_t stop_answer = 0;

void on_interrupt(int) {
  stop_answer = 1;
}

/// Ctrl-C raises stop_answer (and makes a read that waits return), SIGTERM and SIGHUP end the process.
void install_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGHUP, SIG_DFL);
}

/// Reads lines from standard input.
class LineReader {
 public:
  LineReader() : terminal_(::isatty(STDIN_FILENO) != 0) {}

  /// The next line without its end; nothing at the end of the input. Throws Interrupted when Ctrl-C arrives
  /// and nobody is at a terminal, Error when reading fails or a line exceeds 1 MiB.
  std::optional<std::string> next() {
    prompt();
    while (true) {
      const size_t end = pending_.find('\n');
      if (end != std::string::npos || (closed_ && !pending_.empty())) return take(end);
      if (closed_) return std::nullopt;
      fill();
    }
  }

 private:
  void prompt() const {
    if (terminal_) std::fputs("> ", stderr);
  }

  std::string take(size_t end) {
    std::string line = pending_.substr(0, end);
    pending_.erase(0, end == std::string::npos ? end : end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line;
  }

  void fill() {
    constexpr size_t kLongestLine = size_t{1} << 20;
    char buffer[4096];
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) {
      if (!terminal_) throw Interrupted();
      std::fputs("\n(Ctrl-D ends the chat)\n", stderr);
      pending_.clear();
      prompt();
      return;
    }
    require(count >= 0, "standard input: cannot read: {}", std::strerror(errno));
    closed_ = count == 0;
    pending_.append(buffer, static_cast<size_t>(count));
    require(pending_.size() <= kLongestLine, "standard input: a line of more than {} bytes", kLongestLine);
  }

  bool terminal_;
  bool closed_ = false;
  std::string pending_;
};

/// The chat: turns, and what they cost in all.
class Chat {
 public:
  Chat(const Options& options, const Checkpoint& checkpoint, const text::Tokenizer& tokenizer,
       const Model& model)
      : options_(&options),
        tokenizer_(&tokenizer),
        conversation_(checkpoint),
        request_(options.generation.request(checkpoint, tokenizer)),
        generator_(model, tokenizer, options.generation.context_for(model, kDefaultContext),
                   options.generation.kv_format.value_or(model.kv_format())) {
    if (options.system) conversation_.add("system", *options.system);
  }

  /// Throws Error where there is no answer, for want of room, say; the conversation is then as it was before.
  void answer(const std::string& line) {
    const Json before = conversation_.messages();
    try {
      conversation_.add("user", line);
      request_.prompt = encode();
      stop_answer = 0;
      const bool stream = !options_->output.json;
      GenerationResult result = generator_.generate(request_, [&](std::string_view text) {
        if (stream && !text.empty()) print(text);
        return stop_answer == 0;
      });
      if (stream) print("\n");
      spdlog::debug("{}", statistics_line(result));
      conversation_.add("assistant", result.text);
      add_to_total(result);
    } catch (...) {
      conversation_.restore(before);
      throw;
    }
  }

  Json summary() const {
    Json json = {
        {"model", options_->model.string()}, {"messages", conversation_.messages()}, {"text", total_.text}};
    add_statistics(json, total_);
    json["kv_cache"] = name_of(generator_.cache().format());
    return json;
  }

 private:
  /// The conversation in tokens, without its oldest turns where it would leave no room for an answer.
  std::vector<int32_t> encode() {
    int forgotten = 0;
    while (true) {
      std::vector<int32_t> tokens = conversation_.encode(*tokenizer_);
      const bool room = static_cast<int64_t>(tokens.size()) < generator_.context();
      if (!room && conversation_.forget_oldest_turn()) {
        ++forgotten;
        continue;
      }
      if (room && forgotten > 0) {
        spdlog::warn("the conversation is longer than the context of {} tokens: oldest turns forgotten: {}",
                     generator_.context(), forgotten);
      }
      return tokens;
    }
  }

  void add_to_total(const GenerationResult& result) {
    total_.text = result.text;
    total_.finish_reason = result.finish_reason;
    total_.prompt_tokens += result.prompt_tokens;
    total_.cached_tokens += result.cached_tokens;
    total_.completion_tokens += result.completion_tokens;
    total_.decode_steps += result.decode_steps;
    total_.prefill_seconds += result.prefill_seconds;
    total_.decode_seconds += result.decode_seconds;
  }

  const Options* options_;
  const text::Tokenizer* tokenizer_;
  Conversation conversation_;
  GenerationRequest request_;
  Generator generator_;
  GenerationResult total_;
};

void run(const Options& options) {
  options.output.apply();
  options.generation.validate();
  const Device device(options.device);
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  // A template that fails is known before the weights are read.
  Conversation greeting(*checkpoint);
  if (options.system) greeting.add("system", *options.system);
  greeting.add("user", "Hello");
  greeting.encode(tokenizer);
  const auto model = load_model(*checkpoint, device);
  Chat chat(options, *checkpoint, tokenizer, *model);
  install_handlers();
  LineReader lines;
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  while (const auto line = lines.next()) {
    if (line->empty()) continue;
    try {
      chat.answer(*line);
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      // Somebody at a terminal can say it in other words; a program could not know which answer is missing.
      throw_if_file_lost();
      if (!terminal) throw;
      print_error(error.what());
    }
    throw_if_file_lost();
  }
  if (terminal) std::fputs("\n", stderr);
  if (options.output.json) print_json(chat.summary());
}

}  // namespace

void add_chat(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model");
  command->footer(
      "Every line of standard input is a message; the answer is streamed to standard output. Empty lines are "
      "passed "
      "over. Ctrl-C ends the answer, Ctrl-D the chat. What the turns before left in the KV cache is not "
      "computed again. "
      "With --json nothing is streamed; at the end of the input one object has the messages, the last answer "
      "(text) and "
      "the statistics of the whole chat.\n\n"
      "  atom chat packed/\n"
      "  echo 'What is the capital of France?' | atom chat packed/ --system 'Answer in one word.'");
  add_model_argument(*command, options->model);
  command->add_option("--system", options->system, "The system's message in front of the conversation");
  options->generation.add_to(*command);
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
