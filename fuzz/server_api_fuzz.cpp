#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/api_testing.h"

using atom::server::test_support::ApiUnderTest;

// Input: which endpoint (its first byte) and the body of a request to it. The engine says the same to all of
// them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr std::array kPaths = {"/v1/completions", "/v1/chat/completions", "/tokenize",
                                        "/detokenize"};
  static ApiUnderTest api;
  if (size == 0) return 0;
  api.engine->at_once = true;
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto exchange = api.begin("POST", kPaths[data[0] % kPaths.size()], body);
  const unsigned status = exchange->response.status;
  // Exactly one answer, complete, and never the server's own fault.
  if (exchange->answers != 1 || !exchange->ended || status < 200 || status >= 500) abort();
  if (exchange->streams) {
    exchange->events();
  } else {
    exchange->json();
  }
  api.engine->submitted.clear();
  api.engine->cancelled.clear();
  return 0;
}
