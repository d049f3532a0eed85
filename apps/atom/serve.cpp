// atom serve: an OpenAI-compatible server over one model.

#include <chrono>
#include <ctime>
#include <memory>
#include <new>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "common.h"
#include "conversation.h"
#include "engine/engine.h"
#include "engine/stop_tokens.h"
#include "serve_options.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/page.h"

namespace atom::cli {
namespace {

std::unique_ptr<Model> load_weights(const Checkpoint& checkpoint, const Device& device) {
  try {
    return load_model(checkpoint, device);
  } catch (const std::bad_alloc& error) {
    fail("no memory for the model's weights, of which no part can be left out: {:.1f} MiB are free ({})",
         static_cast<double>(memory_for_cache(device.context())) / (1 << 20), error.what());
  }
}

server::ApiOptions api_options(const ServeOptions& options, const Checkpoint& checkpoint,
                               const text::Tokenizer& tokenizer) {
  server::ApiOptions api;
  api.model_name = options.served_name();
  api.created = static_cast<int64_t>(std::time(nullptr));
  if (has_chat_template(checkpoint)) api.chat_template = load_chat_template(checkpoint);
  api.template_variables = template_variables(checkpoint);
  api.end_of_text_ids = end_of_text_ids(checkpoint, tokenizer);
  return api;
}

/// Until a signal comes. Throws Error when the engine or the model's file fails.
void wait_for_signal(const Engine& engine) {
  while (!interrupted()) {
    throw_if_file_lost();
    const std::string failure = engine.failure();
    require(failure.empty(), "the engine has stopped: {}", failure);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void run(const ServeOptions& options) {
  options.output.apply();
  server::HttpOptions http = options.http_options();
  const Device device(options.device);
  const auto checkpoint = Checkpoint::open(options.model);
  const text::Tokenizer tokenizer = load_tokenizer(*checkpoint);
  const auto model = load_weights(*checkpoint, device);
  const EngineOptions engine_options = options.engine_options(*model);
  spdlog::info("settings: {}", options.describe(engine_options));
  // Destroyed behind the engine: until then the engine tells it of requests whose clients have gone.
  std::optional<server::Api> api;
  Engine engine(*model, tokenizer, engine_options);
  api.emplace(engine, tokenizer, api_options(options, *checkpoint, tokenizer));
  http.on_response = [&api](std::string_view path, unsigned status) { api->count_response(path, status); };
  http.needs_no_key = [](std::string_view path) {
    return path == "/health" || path == "/ready" || server::is_page_path(path);
  };
  const std::string scheme = http.tls_certificate.empty() ? "http" : "https";
  const std::string host = http.host.find(':') == std::string::npos ? http.host : "[" + http.host + "]";
  server::HttpServer server(std::move(http),
                            [&api](server::HttpRequest request, std::shared_ptr<server::Exchange> exchange) {
                              if (auto page = server::page_response(request))
                                return exchange->send(std::move(*page));
                              api->handle(std::move(request), std::move(exchange));
                            });
  throw_if_interrupted();
  spdlog::info("listening on {}://{}:{}", scheme, host, server.port());
  wait_for_signal(engine);
  const auto limit = options.drain_timeout();
  spdlog::info("a signal has come: responses in progress have {:.1f} s to end",
               std::chrono::duration<double>(limit).count());
  api->set_draining();
  if (!server.drain(limit)) spdlog::warn("responses in progress are broken off");
  server.stop();
}

}  // namespace

void add_serve(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model by OpenAI's protocol, with a web page");
  command->footer(
      "Every option can also be given by an environment variable (--max-running: ATOM_SERVE_MAX_RUNNING) or "
      "in "
      "the file of --config (max-running = 16); the command line counts before the environment, and that "
      "before the file. The log says what holds. SIGTERM and SIGINT let the responses in progress end; a "
      "second signal ends at once.\n\n"
      "  atom serve packed/\n"
      "  ATOM_SERVE_API_KEY=secret atom serve model.gguf --host 0.0.0.0 --tls-cert cert.pem --tls-key "
      "key.pem");
  options->add_to(*command);
  command->callback([options, &chosen] {
    chosen = [options] {
      options->read_config();
      run(*options);
    };
  });
}

}  // namespace atom::cli
