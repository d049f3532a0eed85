#include "server/api.h"

#include <gtest/gtest.h>

#include "server/api_testing.h"

namespace atom::server {
namespace {

using test_support::ApiUnderTest;

const Json kCompletion = {{"model", "tiny"}, {"prompt", {"a", "b"}}};

TEST(Api, Models) {
  ApiUnderTest api;
  const Json model = Json::parse(
      R"({"id": "tiny", "object": "model", "created": 1700000000, "owned_by": "atom", "max_model_len": 64})");
  EXPECT_EQ(api.begin("GET", "/v1/models")->json(),
            Json({{"object", "list"}, {"data", Json::array({model})}}));
  EXPECT_EQ(api.begin("GET", "/v1/models/tiny")->json(), model);
  const auto missing = api.begin("GET", "/v1/models/large");
  EXPECT_EQ(missing->response.status, 404u);
  EXPECT_EQ(missing->json()["error"]["code"], "model_not_found");
}

TEST(Api, PathsMethodsAndTypes) {
  ApiUnderTest api;
  for (const char* path : {"/v1/embeddings", "/", "/v1/models/", "/v1", ""}) {
    EXPECT_EQ(api.begin("POST", path, "{}")->response.status, 404u) << path;
  }
  const auto wrong = api.begin("GET", "/v1/completions");
  EXPECT_EQ(wrong->response.status, 405u);
  EXPECT_EQ(wrong->response.headers.at(0), (std::pair<std::string, std::string>("Allow", "POST")));
  EXPECT_EQ(api.begin("DELETE", "/v1/models")->response.headers.at(0).second, "GET");
  for (const char* type : {"", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                           "text/html", "text/plain"}) {
    EXPECT_EQ(api.begin("POST", "/v1/completions", "{}", type)->response.status, 415u) << type;
  }
  for (const char* type : {"application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"}) {
    EXPECT_EQ(api.begin("POST", "/v1/completions", "{}", type)->response.status, 400u) << type;
  }
}

TEST(Api, Tokenize) {
  ApiUnderTest api;
  EXPECT_EQ(api.post("/tokenize", {{"prompt", "hey"}})->json(),
            Json::parse(R"({"tokens": [257, 256, 121], "count": 3, "max_model_len": 64})"));
  EXPECT_EQ(api.post("/tokenize", {{"prompt", ""}, {"add_special_tokens", false}})->json()["count"], 0);
  EXPECT_EQ(api.post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "x"}}}}})->json()["count"],
            10);
  EXPECT_EQ(api.post("/detokenize", {{"tokens", {257, 256, 121}}})->json(), Json({{"prompt", "<s>hey"}}));
}

TEST(Api, HealthAndReadiness) {
  ApiUnderTest api;
  EXPECT_EQ(api.begin("GET", "/health")->response.status, 200u);
  EXPECT_EQ(api.begin("GET", "/ready")->response.status, 200u);
  api.api->set_draining();
  EXPECT_EQ(api.begin("GET", "/health")->response.status, 200u);
  EXPECT_EQ(api.begin("GET", "/ready")->response.status, 503u);
  api.engine->counts.failed = true;
  EXPECT_EQ(api.begin("GET", "/health")->response.status, 503u);
}

TEST(Api, ClientsThatGoAreCancelled) {
  for (const bool stream : {false, true}) {
    ApiUnderTest api;
    Json body = kCompletion;
    body["stream"] = stream;
    const auto exchange = api.post("/v1/completions", body);
    exchange->close();
    EXPECT_EQ(api.engine->cancelled, (std::vector<uint64_t>{1, 2}));
    for (const auto& one : api.engine->submitted) {
      one.listener->on_delta({.finish_reason = FinishReason::cancelled});
    }
    EXPECT_EQ(exchange->answers, 0);
  }
}

TEST(Api, ClientsThatReadTooSlowlyAreCancelled) {
  ApiUnderTest api;
  Json body = kCompletion;
  body["stream"] = true;
  const auto exchange = api.post("/v1/completions", body);
  const auto listener = api.engine->submitted[0].listener;
  listener->on_delta({.text = "a", .tokens = {'a'}});
  EXPECT_TRUE(api.engine->cancelled.empty());
  exchange->gone = true;
  listener->on_delta({.text = "b", .tokens = {'b'}});
  EXPECT_EQ(api.engine->cancelled, (std::vector<uint64_t>{1, 2}));
}

TEST(Api, MetricsOfRequestsAndEngine) {
  ApiUnderTest api;
  api.engine->counts = {.running = 3,
                        .waiting = 4,
                        .blocks = 10,
                        .free_blocks = 4,
                        .cached_blocks = 1,
                        .cache_bytes = 16000,
                        .bytes_per_token = 100,
                        .bytes_per_token_f16 = 360,
                        .preemptions = 5};
  api.answer("/v1/completions", kCompletion);
  api.api->count_response("/v1/models/some", 404);
  api.api->count_response("/v1/models/other", 404);
  api.api->count_response("/page.css", 200);
  const auto exchange = api.begin("GET", "/metrics");
  EXPECT_TRUE(exchange->response.content_type.starts_with("text/plain; version=0.0.4"));
  const std::string& text = exchange->response.body;
  for (const char* line :
       {"atom_running_sequences 3\n", "atom_waiting_sequences 4\n", "atom_preemptions_total 5\n",
        "atom_cache_tokens_capacity 160\n", "atom_cache_tokens_used 96\n", "atom_cache_blocks_used 6\n",
        "atom_cache_fp16_ratio 3.6", "# TYPE atom_preemptions_total counter\n",
        "# TYPE atom_time_to_first_token_seconds histogram\n", "atom_time_to_first_token_seconds_count 2\n",
        "atom_time_per_output_token_seconds_count 2\n", "atom_request_seconds_count 2\n",
        "atom_request_prompt_tokens_sum 4\n", "atom_request_generated_tokens_sum 8\n",
        "atom_http_responses_total{path=\"/v1/models/{model}\",status=\"404\"} 2\n",
        "atom_http_responses_total{path=\"other\",status=\"200\"} 1\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

TEST(Api, DescribesItself) {
  ApiUnderTest api;
  const Json description = api.begin("GET", "/openapi.json")->json();
  EXPECT_EQ(description["openapi"], "3.1.0");
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{model}",
                           "/tokenize", "/detokenize", "/health", "/ready", "/metrics", "/openapi.json"}) {
    EXPECT_TRUE(description["paths"].contains(path)) << path;
  }
  // Every reference leads somewhere.
  const std::string text = description.dump();
  for (size_t at = text.find("\"$ref\":\"#"); at != std::string::npos;
       at = text.find("\"$ref\":\"#", at + 1)) {
    const size_t begin = at + 9;
    const std::string pointer = text.substr(begin, text.find('"', begin) - begin);
    EXPECT_TRUE(description.contains(Json::json_pointer(pointer))) << pointer;
  }
}

}  // namespace
}  // namespace atom::server
