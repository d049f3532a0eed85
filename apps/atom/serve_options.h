#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cache_size.h"
#include "common.h"
#include "engine/engine.h"
#include "server/http_server.h"

namespace atom::cli {

/// The options of `serve`. Each is a flag, an environment variable (ATOM_SERVE_ and its name in capitals) and
/// a line of the configuration file; the first of these that is given counts.
class ServeOptions {
 public:
  void add_to(CLI::App& command);
  /// Takes what the configuration file says of options that are given nowhere else. Throws UsageError.
  void read_config();

  /// Throw Error and UsageError.
  EngineOptions engine_options(const Model& model) const;
  server::HttpOptions http_options() const;
  std::string served_name() const;

  /// "name=value" of every setting; `engine`: what has been derived. Keys are only counted.
  std::string describe(const EngineOptions& engine) const;

  std::chrono::milliseconds drain_timeout() const;

  OutputOptions output;
  DeviceOptions device;
  std::filesystem::path model;

 private:
  void add_engine_options(CLI::App& command);
  void add_http_options(CLI::App& command);
  std::vector<std::string> api_keys() const;

  CLI::App* command_ = nullptr;
  std::string config_;
  std::string model_name_;
  EngineOptions engine_;
  std::optional<KvFormat> kv_format_;
  CacheSize cache_;
  bool no_prefix_cache_ = false;
  server::HttpOptions http_;
  std::vector<std::string> api_keys_;
  std::string api_key_file_;
  double request_timeout_ = 30;
  double idle_timeout_ = 75;
  double write_timeout_ = 1;
  double drain_timeout_ = 30;
};

}  // namespace atom::cli
