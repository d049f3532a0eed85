#include "serve_options.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/mapped_file.h"

namespace atom::cli {
namespace {

constexpr int64_t kMany = int64_t{1} << 31;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

/// Settings are the options with a name; MODEL, --help and --config are none.
bool is_setting(const CLI::Option& option) {
  const std::vector<std::string>& names = option.get_lnames();
  return !names.empty() && names[0] != "help" && names[0] != "config";
}

std::string environment_name(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c == '-' ? '_' : static_cast<char>(std::toupper(c)); });
  return "ATOM_SERVE_" + name;
}

}  // namespace

void ServeOptions::add_to(CLI::App& command) {
  command_ = &command;
  add_model_argument(command, model);
  command.add_option("--config", config_,
                     "Read settings from this TOML file, by the names of the options without their dashes");
  command.add_option("--served-model-name", model_name_,
                     "Name that requests call the model by (default: that of its file or folder)");
  add_http_options(command);
  add_engine_options(command);
  device.add_to(command);
  command
      .add_option("--log-level", output.log_level,
                  "What to say on standard error: trace, debug (a line for every request), info, warn, "
                  "error, off")
      ->capture_default_str();
  for (CLI::Option* option : command.get_options()) {
    if (is_setting(*option)) option->envname(environment_name(option->get_lnames()[0]));
  }
}

void ServeOptions::add_engine_options(CLI::App& command) {
  command
      .add_option("--context", engine_.context,
                  "Tokens of a prompt and its answer together (default: the model's limit, where the cache "
                  "has room for it)")
      ->check(CLI::Range(int64_t{2}, kMany));
  add_kv_cache_option(command, kv_format_);
  auto* tokens = command
                     .add_option("--cache-tokens", cache_.tokens,
                                 "Tokens that the KV cache has room for, of all sequences (default: what a "
                                 "quarter of the free "
                                 "memory holds; on a GPU all that is left of its memory)")
                     ->check(CLI::Range(int64_t{2}, int64_t{1} << 40));
  command.add_option("--cache-memory", cache_.bytes, "Bytes of the KV cache instead: 512MB, 4GB")
      ->transform(CLI::AsSizeValue(false))
      ->excludes(tokens);
  command.add_option("--block-size", engine_.block_size, "Tokens of a block of the cache")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("--max-running", engine_.max_running, "Sequences that run at once, at most")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command
      .add_option("--max-step-tokens", engine_.max_step_tokens,
                  "Tokens that a step computes at most, of prompts and answers; more than --max-running. "
                  "Fewer make "
                  "answers flow more evenly, more make prompts faster")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--max-waiting", engine_.max_waiting,
                  "Requests that wait for their turn, at most; beyond that they get status 429")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_flag("--no-prefix-cache", no_prefix_cache_,
                   "Compute every prompt whole, whatever others began alike");
  command.add_flag("--check-blocks", engine_.check_blocks,
                   "Check the bookkeeping of the cache after every step");
}

void ServeOptions::add_http_options(CLI::App& command) {
  command.add_option("--host", http_.host, "Address to listen on; 0.0.0.0 or :: for all of this machine's")
      ->capture_default_str();
  command.add_option("--port", http_.port, "Port to listen on; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command.add_option("--http-threads", http_.threads, "Threads that read requests and write responses")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command.add_option("--tls-cert", http_.tls_certificate, "PEM file of the certificate (and its chain)");
  command.add_option("--tls-key", http_.tls_key, "PEM file of its key");
  command
      .add_option(
          "--api-key", api_keys_,
          "Key of which requests must bring one (\"Authorization: Bearer KEY\"); may be given several "
          "times. Other "
          "users of this machine can see it: rather give it by environment or file")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--api-key-file", api_key_file_, "File with such keys, one a line");
  command
      .add_option("--cors-origin", http_.cors_origins,
                  "Origin whose pages may call from a browser (https://example.org), or *; may be given "
                  "several times")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--max-header-bytes", http_.max_header_bytes, "Size of a request's head, at most (431)")
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 24))
      ->capture_default_str();
  command.add_option("--max-body-bytes", http_.max_body_bytes, "Size of a request's body, at most (413)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32))
      ->capture_default_str();
  command.add_option("--max-connections", http_.max_connections, "Connections at once, at most (503)")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--max-unsent-bytes", http_.max_unsent_bytes,
                  "Bytes of a stream that may wait for its client before it is dropped")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->capture_default_str();
  const std::pair<const char*, std::pair<double*, const char*>> times[] = {
      {"--request-timeout", {&request_timeout_, "Seconds that a client has to send its request (408)"}},
      {"--idle-timeout", {&idle_timeout_, "Seconds until a connection without requests is closed"}},
      {"--write-timeout",
       {&write_timeout_, "Seconds after which a client that takes nothing of its response is dropped"}},
      {"--drain-timeout",
       {&drain_timeout_, "Seconds that responses in progress have to end after SIGTERM or SIGINT"}}};
  for (const auto& [name, setting] : times) {
    command.add_option(name, *setting.first, setting.second)
        ->check(CLI::Range(0.001, 1e6))
        ->capture_default_str();
  }
}

void ServeOptions::read_config() {
  if (config_.empty()) return;
  const std::string where = fmt::format("--config: {}", printable(config_));
  std::istringstream text(read_text_file(config_));
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_config(text);
  } catch (const CLI::ParseError& error) {
    throw UsageError(fmt::format("{}: {}", where, error.what()));
  }
  for (const CLI::ConfigItem& item : items) {
    CLI::Option* option = item.parents.empty() ? command_->get_option_no_throw("--" + item.name) : nullptr;
    if (option == nullptr || !is_setting(*option)) {
      throw UsageError(fmt::format("{}: unknown setting '{}'", where, printable(item.fullname())));
    }
    if (option->count() > 0) continue;
    for (const CLI::Option* other : option->get_excludes()) {
      if (other->count() == 0) continue;
      throw UsageError(fmt::format("{}: {} excludes {}", where, option->get_name(), other->get_name()));
    }
    try {
      if (option->get_expected_max() == 0) {
        option->add_result(command_->get_config_formatter()->to_flag(item));
      } else {
        option->add_result(item.inputs);
      }
      option->run_callback();
    } catch (const CLI::ParseError& error) {
      throw UsageError(fmt::format("{}: {}", where, error.what()));
    }
  }
}

EngineOptions ServeOptions::engine_options(const Model& loaded) const {
  EngineOptions options = engine_;
  options.kv_format = kv_format_.value_or(loaded.kv_format());
  options.prefix_caching = !no_prefix_cache_;
  if (options.max_step_tokens <= options.max_running) {
    throw UsageError(fmt::format("--max-step-tokens: expected more than --max-running ({}), found {}",
                                 options.max_running, options.max_step_tokens));
  }
  size_cache(loaded, cache_, options);
  return options;
}

std::vector<std::string> ServeOptions::api_keys() const {
  std::vector<std::string> keys = api_keys_;
  if (api_key_file_.empty()) return keys;
  std::istringstream text(read_text_file(api_key_file_));
  const size_t before = keys.size();
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) keys.push_back(line);
  }
  require(keys.size() > before, "--api-key-file: {}: has no key", printable(api_key_file_));
  return keys;
}

server::HttpOptions ServeOptions::http_options() const {
  server::HttpOptions options = http_;
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    throw UsageError("--tls-cert and --tls-key go together");
  }
  options.api_keys = api_keys();
  options.request_timeout = milliseconds(request_timeout_);
  options.idle_timeout = milliseconds(idle_timeout_);
  options.write_timeout = milliseconds(write_timeout_);
  return options;
}

std::chrono::milliseconds ServeOptions::drain_timeout() const {
  return milliseconds(drain_timeout_);
}

std::string ServeOptions::served_name() const {
  if (!model_name_.empty()) return model_name_;
  const std::filesystem::path path = std::filesystem::absolute(model).lexically_normal();
  const std::filesystem::path last = path.has_filename() ? path : path.parent_path();
  return last.extension() == ".gguf" ? last.stem().string() : last.filename().string();
}

std::string ServeOptions::describe(const EngineOptions& engine) const {
  std::string text;
  for (const CLI::Option* option : command_->get_options()) {
    if (!is_setting(*option)) continue;
    const std::string& name = option->get_lnames()[0];
    std::string value = option->count() > 0 ? fmt::format("{}", fmt::join(option->results(), ","))
                                            : option->get_default_str();
    if (name == "api-key") value = fmt::format("({} given)", api_keys_.size());
    if (name == "served-model-name") value = served_name();
    if (name == "context") value = std::to_string(engine.context);
    if (name == "kv-cache") value = name_of(engine.kv_format);
    if (name == "cache-tokens") value = std::to_string(engine.n_blocks * engine.block_size);
    if (name == "cache-memory") continue;  // --cache-tokens says it
    if (value.empty()) value = option->get_expected_max() == 0 ? "false" : "(none)";
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, value);
  }
  return text;
}

}  // namespace atom::cli
