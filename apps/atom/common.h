#pragma once

#include <charconv>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "kvcache/paged_cache.h"
#include "model/model.h"
#include "tensor/device.h"
#include "text/tokenizer.h"

/// What the subcommands share: options, loading, printing.
namespace atom::cli {

/// Accepts counts from `least` on that have no limit of their own.
inline CLI::Range at_least(int64_t least) {
  return {least, int64_t{1} << 60};
}

/// Accepts what fits 64 bits without a sign. CLI11 itself wraps negative numbers around and saturates large
/// ones.
inline const CLI::Validator kWholeNumber(
    [](std::string& text) {
      uint64_t value = 0;
      const char* end = text.data() + text.size();
      const auto [stop, error] = std::from_chars(text.data(), end, value);
      return error == std::errc() && stop == end ? std::string()
                                                 : "expected a whole number, found '" + printable(text) + "'";
    },
    "");

using Json = nlohmann::ordered_json;

/// What a subcommand does once its options are parsed. Each `add_...` declares a subcommand and, when the
/// command line names it, sets `chosen`.
using Command = std::function<void()>;

void add_quantize(CLI::App& app, Command& chosen);
void add_eval(CLI::App& app, Command& chosen);
void add_generate(CLI::App& app, Command& chosen);
void add_chat(CLI::App& app, Command& chosen);
void add_serve(CLI::App& app, Command& chosen);
void add_tokenize(CLI::App& app, Command& chosen);
void add_inspect(CLI::App& app, Command& chosen);
void add_bench(CLI::App& app, Command& chosen);

/// --json and --log-level: of every command.
struct OutputOptions {
  bool json = false;
  std::string log_level = "info";

  void add_to(CLI::App& command);
  /// Sets up the log. Every command does it first. Throws UsageError.
  void apply() const;
};

/// --threads, --isa, --device and --fast: of every command that computes.
struct DeviceOptions {
  int threads = 0;
  std::string isa;
  /// Empty: the CPU.
  std::string device;
  bool fast = false;

  /// `with_fast`: also --fast, of commands that do not measure both kinds of kernels anyway.
  void add_to(CLI::App& command, bool with_fast = true);
};

/// The device that the options ask for, and its threads.
class Device {
 public:
  /// Throws UsageError for an instruction set or device that is not there.
  explicit Device(const DeviceOptions& options);

  /// Says on the log what it is: once the work begins, so that a model that cannot be read is one line of
  /// error.
  void announce() const;

  const DeviceContext& context() const { return context_; }
  int threads() const { return pool_.size(); }
  /// "cpu", or "cuda" and what GPU it is.
  const std::string& description() const { return description_; }

 private:
  ThreadPool pool_;
  std::shared_ptr<cuda::Device> gpu_;
  std::string description_;
  DeviceContext context_;
};

/// MODEL, the positional argument of every command.
void add_model_argument(CLI::App& command, std::filesystem::path& model);

/// MODEL, or --random SHAPE in its place: of commands that need no tokenizer.
struct ModelSource {
  std::filesystem::path model;
  std::string random;
  bool is_random() const { return !random.empty(); }
  /// What was asked for, for reports.
  std::string name() const { return is_random() ? random : model.string(); }

  void add_to(CLI::App& command);
  /// Opens the model; random weights are those of `seed`, made by the device's threads. Throws UsageError
  /// unless exactly one of the two is given, and for an unknown shape.
  std::unique_ptr<Checkpoint> open(const Device& device, uint64_t seed) const;
  /// Throws what open() throws of UsageErrors.
  void check() const;
};

/// --kv-cache; `format` stays unset unless it is given.
void add_kv_cache_option(CLI::App& command, std::optional<KvFormat>& format);

/// Loads the model and says on the log which kernels run it.
std::unique_ptr<Model> load_model(const Checkpoint& checkpoint, const Device& device);

text::Tokenizer load_tokenizer(const Checkpoint& checkpoint);

/// Writes `error: message` as one line to standard error.
void print_error(std::string message);

/// Writes text to standard output. Throws Error when that fails (a full disk, say).
void print(std::string_view text);

/// Writes one JSON object on one line; bytes that are not UTF-8 become U+FFFD.
void print_json(const Json& json);

/// All of standard input. Throws Error beyond `limit` bytes.
std::string read_standard_input(size_t limit = size_t{1} << 30);

}  // namespace atom::cli
