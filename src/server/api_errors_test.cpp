#include <gtest/gtest.h>

#include "server/api_testing.h"

namespace atom::server {
namespace {

using test_support::ApiUnderTest;
using test_support::RecordedExchange;

struct BadRequest {
  const char* path;
  const char* body;   // members beside the model and a prompt or messages; or all of it, where not an object
  const char* param;  // "": none
  const char* text;   // in the message
  unsigned status = 400;
  const char* code = "";
};

constexpr const char* kText = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

const BadRequest kBadRequests[] = {
    // Not the JSON that is wanted.
    {kText, "", "", "body: invalid JSON at byte"},
    {kText, "[1", "", "body: invalid JSON at byte"},
    {kText, "[]", "", "expected a JSON object"},
    {kText, "{\"a\": NaN}", "", "invalid JSON at byte 7"},
    {kText, "{\"a\": 1e999}", "", "number overflow"},
    {kText, "{\"a\": 1, \"a\": 2}", "", "appears twice"},
    {kText, "{\"a\": \"\xFF\"}", "", "invalid JSON at byte"},
    {kText, "{\"a\": \"\\ud800\"}", "", "invalid JSON at byte"},
    // Fields of both.
    {kText, R"({"model": null})", "model", "missing"},
    {kText, R"({"model": 5})", "model", "expected a string"},
    {kText, R"({"model": "gpt-4"})", "model", "not served", 404, "model_not_found"},
    {kText, R"({"nonsense": null})", "nonsense", "unknown field", 400, "unknown_parameter"},
    {kText, R"({"temperature": -0.5})", "temperature", "from 0"},
    {kText, R"({"temperature": "hot"})", "temperature", "expected a number"},
    {kText, R"({"temperature": 1e-7})", "temperature", "0.001"},
    {kText, R"({"temperature": 1e300})", "temperature", "expected a number"},
    {kText, R"({"top_p": 0})", "top_p", "more than 0"},
    {kText, R"({"top_p": 1.5})", "top_p", "from 0 to 1"},
    {kText, R"({"min_p": 2})", "min_p", "from 0 to 1"},
    {kText, R"({"top_k": -2})", "top_k", "from -1"},
    {kText, R"({"top_k": 1.0})", "top_k", "expected an integer"},
    {kText, R"({"repetition_penalty": 0})", "repetition_penalty", "0.01"},
    {kText, R"({"presence_penalty": 2.1})", "presence_penalty", "from -2 to 2"},
    {kText, R"({"frequency_penalty": true})", "frequency_penalty", "from -2 to 2"},
    {kText, R"({"stop_token_ids": [5, 260]})", "stop_token_ids[1]", "a token id below 260"},
    {kText, R"({"n": 0})", "n", "from 1 to 16"},
    {kText, R"({"n": 17})", "n", "from 1 to 16"},
    {kText, R"({"n": 1.5})", "n", "expected an integer"},
    {kText, R"({"seed": 1.5})", "seed", "expected an integer"},
    {kText, R"({"seed": 9223372036854775808})", "seed", "integer of 64 bits"},
    {kText, R"({"seed": 99999999999999999999})", "seed", "integer of 64 bits"},
    {kText, R"({"stop": ""})", "stop", "not empty"},
    {kText, R"({"stop": ["a", ""]})", "stop[1]", "not empty"},
    {kText, R"({"stop": [1]})", "stop[0]", "expected a string"},
    {kText, R"({"stop": {}})", "stop", "a string or a list"},
    {kText, R"({"stop": [".",".",".",".",".",".",".",".",".",".",".",".",".",".",".",".","."]})", "stop",
     "at most 16 strings, found 17"},
    {kText, R"({"logit_bias": []})", "logit_bias", "expected an object"},
    {kText, R"({"logit_bias": {"x": 1}})", "logit_bias", "token ids below 260"},
    {kText, R"({"logit_bias": {"260": 1}})", "logit_bias", "token ids below 260"},
    {kText, R"({"logit_bias": {"-1": 1}})", "logit_bias", "token ids below 260"},
    {kText, R"({"logit_bias": {"7": 1, "07": 1}})", "logit_bias", "token 7 appears twice"},
    {kText, R"({"logit_bias": {"7": 101}})", "logit_bias.7", "from -100 to 100"},
    {kText, R"({"logit_bias": {"7": null}})", "logit_bias.7", "from -100 to 100"},
    {kText, R"({"stop_token_ids": [-1]})", "stop_token_ids[0]", "token id"},
    {kText, R"({"stop_token_ids": 7})", "stop_token_ids", "list of token ids"},
    {kText, R"({"stream": "yes"})", "stream", "true or false"},
    {kText, R"({"stream_options": {}})", "stream_options", "stream is true"},
    {kText, R"({"stream": true, "stream_options": 1})", "stream_options", "an object"},
    {kText, R"({"stream": true, "stream_options": {"x": 1}})", "stream_options.x", "unknown field", 400,
     "unknown_parameter"},
    {kText, R"({"store": true})", "store", "only false", 400, "unsupported_parameter"},
    {kText, R"({"service_tier": "flex"})", "service_tier", "\"auto\"", 400, "unsupported_parameter"},
    {kText, R"({"metadata": 3})", "metadata", "an object"},
    {kText, R"({"user": 3})", "user", "a string"},
    // Completions alone.
    {kText, R"({"prompt": null})", "prompt", "missing"},
    {kText, R"({"prompt": 5})", "prompt", "a list of strings"},
    {kText, R"({"prompt": []})", "prompt", "at least one prompt"},
    {kText, R"({"prompt": [[]]})", "prompt", "at least one token"},
    {kText, R"({"prompt": "", "add_special_tokens": false})", "prompt", "at least one token"},
    {kText, R"({"prompt": [1, "a"]})", "prompt[1]", "token id"},
    {kText, R"({"prompt": [1, 2.5]})", "prompt[1]", "token id"},
    {kText, R"({"prompt": [4294967296]})", "prompt[0]", "token id"},
    {kText, R"({"prompt": [[1], [2, 260]]})", "prompt[1][1]", "a token id below 260"},
    {kText, R"({"prompt": ["a", [1]]})", "prompt", "a list of strings"},
    {kText, R"({"prompt": [[1], {}]})", "prompt", "a list of strings"},
    {kText, R"({"prompt": ["","","","","","","","","","","","","","","","",""]})", "prompt", "at most 16"},
    {kText, R"({"prompt": ["a", "b", "c"], "n": 6})", "n", "at most 16 choices"},
    {kText, R"({"max_tokens": 0})", "max_tokens", "echo"},
    {kText, R"({"max_tokens": -1})", "max_tokens", "from 0"},
    {kText, R"({"max_tokens": 1e3})", "max_tokens", "expected an integer"},
    {kText, R"({"max_tokens": 63})", "prompt", "2 in the prompt and 63 to generate", 400,
     "context_length_exceeded"},
    {kText, R"({"logprobs": 21})", "logprobs", "from 0 to 20"},
    {kText, R"({"logprobs": true})", "logprobs", "expected an integer"},
    {kText, R"({"echo": 1})", "echo", "true or false"},
    {kText, R"({"best_of": 2})", "best_of", "only n", 400, "unsupported_parameter"},
    {kText, R"({"suffix": ""})", "suffix", "suffix", 400, "unsupported_parameter"},
    {kText, R"({"messages": []})", "messages", "unknown field", 400, "unknown_parameter"},
    // Chat alone.
    {kChat, R"({"messages": null})", "messages", "missing"},
    {kChat, R"({"messages": []})", "messages", "1 to 4096"},
    {kChat, R"({"messages": "hi"})", "messages", "a list"},
    {kChat, R"({"messages": ["hi"]})", "messages[0]", "an object"},
    {kChat, R"({"messages": [{"content": "a"}]})", "messages[0].role", "missing"},
    {kChat, R"({"messages": [{"role": "king", "content": "a"}]})", "messages[0].role", "\"developer\""},
    {kChat, R"({"messages": [{"role": "tool", "content": "a"}]})", "messages[0].role", "tools", 400,
     "unsupported_parameter"},
    {kChat, R"({"messages": [{"role": "user"}]})", "messages[0].content", "missing"},
    {kChat, R"({"messages": [{"role": "user", "content": 3}]})", "messages[0].content", "text parts"},
    {kChat, R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})",
     "messages[0].content[0].type", "only \"text\"", 400, "unsupported_parameter"},
    {kChat, R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})",
     "messages[0].content[0].text", "missing"},
    {kChat, R"({"messages": [{"role": "user", "content": "a", "mood": 1}]})", "messages[0].mood",
     "unknown field", 400, "unknown_parameter"},
    {kChat, R"({"messages": [{"role": "assistant", "content": "a", "tool_calls": [1]}]})",
     "messages[0].tool_calls", "tools", 400, "unsupported_parameter"},
    {kChat, R"({"tools": []})", "tools", "tools are not supported", 400, "unsupported_parameter"},
    {kChat, R"({"tool_choice": "auto"})", "tool_choice", "none", 400, "unsupported_parameter"},
    {kChat, R"({"functions": [1]})", "functions", "tools", 400, "unsupported_parameter"},
    {kChat, R"({"audio": {}})", "audio", "audio", 400, "unsupported_parameter"},
    {kChat, R"({"modalities": ["text", "audio"]})", "modalities", "text", 400, "unsupported_parameter"},
    {kChat, R"({"prediction": {}})", "prediction", "predicted", 400, "unsupported_parameter"},
    {kChat, R"({"web_search_options": {}})", "web_search_options", "web search", 400,
     "unsupported_parameter"},
    {kChat, R"({"response_format": {"type": "json_object"}})", "response_format.type", "structured output",
     400, "unsupported_parameter"},
    {kChat, R"({"response_format": "text"})", "response_format", "an object"},
    {kChat, R"({"top_logprobs": 1})", "top_logprobs", "logprobs is true"},
    {kChat, R"({"logprobs": 1})", "logprobs", "true or false"},
    {kChat, R"({"logprobs": true, "top_logprobs": 21})", "top_logprobs", "from 0 to 20"},
    {kChat, R"({"max_tokens": 0})", "max_tokens", "from 1"},
    {kChat, R"({"max_tokens": 3, "max_completion_tokens": 4})", "max_tokens", "contradicts"},
    {kChat, R"({"max_tokens": 60})", "messages", "60 to generate", 400, "context_length_exceeded"},
    {kChat, R"({"prompt": "x"})", "prompt", "unknown field", 400, "unknown_parameter"},
    {kChat, R"({"best_of": 1})", "best_of", "unknown field", 400, "unknown_parameter"},
    // The others.
    {"/tokenize", R"({"model": "tiny"})", "prompt", "either prompt"},
    {"/tokenize", R"({"prompt": "a", "messages": [{"role": "user", "content": "b"}]})", "prompt", "either"},
    {"/tokenize", R"({"prompt": 7})", "prompt", "a string"},
    {"/detokenize", R"({"tokens": "a"})", "tokens", "list of token ids"},
    {"/detokenize", R"({"tokens": [1, -1]})", "tokens[1]", "token id"},
    {"/detokenize", R"({"tokens": [260]})", "tokens[0]", "a token id below 260"},
    {"/detokenize", R"({"x": 1, "tokens": []})", "x", "unknown field", 400, "unknown_parameter"},
};

/// The given members beside those that a request must have.
std::string complete_body(const BadRequest& bad) {
  const std::string path = bad.path;
  if (path != kText && path != kChat) return bad.body;
  Json given;
  try {
    given = Json::parse(bad.body);
  } catch (const Json::exception&) {
    return bad.body;
  }
  if (!given.is_object() || std::string(bad.body).find("\"a\": 1, \"a\"") != std::string::npos)
    return bad.body;
  Json body = {{"model", "tiny"}};
  if (path == kText) body["prompt"] = "a";
  if (path == kChat) body["messages"] = Json::parse(R"([{"role": "user", "content": "a"}])");
  body.update(given);
  return body.dump();
}

void expect_error(const RecordedExchange& exchange, unsigned status, const std::string& text) {
  EXPECT_EQ(exchange.answers, 1);
  EXPECT_FALSE(exchange.streams);
  ASSERT_EQ(exchange.response.status, status) << exchange.response.body;
  const Json error = exchange.json().at("error");
  const std::string message = error.at("message");
  EXPECT_NE(message.find(text), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(ApiErrors, EveryOneNamesItsField) {
  ApiUnderTest api;
  for (const BadRequest& bad : kBadRequests) {
    SCOPED_TRACE(std::string(bad.path) + " " + bad.body);
    const auto exchange = api.begin("POST", bad.path, complete_body(bad));
    expect_error(*exchange, bad.status, bad.text);
    const Json error = exchange->json().at("error");
    EXPECT_EQ(error.at("param"), *bad.param ? Json(bad.param) : Json(nullptr));
    EXPECT_EQ(error.at("code"), *bad.code ? Json(bad.code) : Json(nullptr));
    EXPECT_EQ(error.at("type"), "invalid_request_error");
  }
  EXPECT_TRUE(api.engine->submitted.empty());
}

TEST(ApiErrors, DeepJson) {
  ApiUnderTest api;
  for (const char* open : {"[", "{\"a\":"}) {
    std::string body = "{\"prompt\": ";
    for (int i = 0; i < 500'000; ++i) body += open;
    expect_error(*api.begin("POST", kText, body), 400, "nested deeper than");
  }
}

TEST(ApiErrors, LargeThingsAreRefusedEarly) {
  ApiUnderTest api;
  const std::string large(1'000'000, 'x');
  expect_error(*api.post(kText, {{"model", "tiny"}, {"prompt", large}}), 400, "1000000 bytes");
  const Json messages = {{{"role", "user"}, {"content", large}}};
  expect_error(*api.post(kChat, {{"model", "tiny"}, {"messages", messages}}), 400, "bytes of text");
  expect_error(*api.post(kText, {{"model", "tiny"}, {"prompt", "a"}, {"stop", std::string(1001, 'x')}}), 400,
               "at most 1000 bytes, found 1001");
  Json bias = Json::object();
  for (int i = 0; i < 1025; ++i) bias[std::to_string(i)] = 1;
  expect_error(*api.post(kText, {{"model", "tiny"}, {"prompt", "a"}, {"logit_bias", bias}}), 400,
               "at most 1024 tokens, found 1025");
  Json many = {{"model", "tiny"}, {"prompt", "a"}};
  for (int i = 0; i < 255; ++i) many[std::to_string(i)] = 1;
  expect_error(*api.post(kText, many), 400, "body: expected at most 256 members, found 257");
}

TEST(ApiErrors, TheFirstTextLongerThanTheContextIsTheLastThatIsRead) {
  ApiUnderTest api;
  const std::string longer(100, 'x');
  const std::string text = "64 tokens for prompt and answer together; found 10";
  auto exchange = api.post(kText, {{"model", "tiny"}, {"prompt", {"a", longer, longer}}});
  expect_error(*exchange, 400, text);
  EXPECT_EQ(exchange->json().at("error").at("param"), "prompt[1]");
  EXPECT_EQ(exchange->json().at("error").at("code"), "context_length_exceeded");
  const Json messages = {{{"role", "user"}, {"content", longer}}};
  expect_error(*api.post(kChat, {{"model", "tiny"}, {"messages", messages}}), 400, text);
  EXPECT_TRUE(api.engine->submitted.empty());
  // Who asks how many they are hears it.
  EXPECT_EQ(api.post("/tokenize", {{"prompt", longer}})->json().at("count"), 101);
}

TEST(ApiErrors, WhatTheEngineSays) {
  ApiUnderTest api;
  const Json body = {{"model", "tiny"}, {"prompt", "a"}};
  api.engine->refuse = [](size_t) { throw Overloaded("the queue is full"); };
  auto exchange = api.post(kText, body);
  expect_error(*exchange, 429, "the queue is full");
  EXPECT_EQ(exchange->response.headers.at(0).first, "Retry-After");
  api.engine->refuse = [](size_t) { throw Unavailable("draining"); };
  exchange = api.post(kText, body);
  expect_error(*exchange, 503, "draining");
  EXPECT_EQ(exchange->response.headers.at(0).first, "Retry-After");
  api.engine->refuse = [](size_t) { throw Error("token 300 is outside of the vocabulary"); };
  expect_error(*api.post(kText, body), 400, "token 300");
  api.engine->refuse = [](size_t) { throw UsageError("top_p: no"); };
  exchange = api.post(kText, body);
  expect_error(*exchange, 400, "top_p: no");
  EXPECT_EQ(exchange->json().at("error").at("param"), "top_p");
  api.engine->refuse = [](size_t) { throw std::bad_alloc(); };
  expect_error(*api.post(kText, body), 500, "could not answer");
}

TEST(ApiErrors, AllPromptsOrNone) {
  for (const bool stream : {false, true}) {
    ApiUnderTest api;
    api.engine->at_once = true;
    api.engine->refuse = [](size_t i) {
      if (i == 2) throw Overloaded("full");
    };
    const auto exchange =
        api.post(kText, {{"model", "tiny"}, {"prompt", {"a", "b", "c"}}, {"stream", stream}});
    expect_error(*exchange, 429, "full");
    EXPECT_TRUE(api.engine->submitted.empty());
  }
}

TEST(ApiErrors, EngineFailsBeforeAndAmidAStream) {
  for (const bool stream : {false, true}) {
    ApiUnderTest api;
    const Json body = {{"model", "tiny"}, {"prompt", {"a", "b"}}, {"stream", stream}};
    auto exchange = api.post(kText, body);
    api.engine->submitted[0].listener->on_error("the logits are not finite");
    expect_error(*exchange, 500, "not finite");
    EXPECT_EQ(api.engine->cancelled, (std::vector<uint64_t>{1, 2}));
    api.engine->run();  // too late
    EXPECT_EQ(exchange->answers, 1);

    exchange = api.post(kText, body);
    auto& first = api.engine->submitted[2];
    first.listener->on_delta({.text = "h", .tokens = {'h'}});
    first.listener->on_error("the engine failed");
    EXPECT_TRUE(exchange->ended);
    EXPECT_FALSE(exchange->done());
    EXPECT_EQ(exchange->response.status, stream ? 200u : 500u);
    if (stream) {
      ASSERT_EQ(exchange->events().size(), 2u);
      EXPECT_EQ(exchange->events()[1]["error"]["message"], "the engine failed");
    }
  }
}

}  // namespace
}  // namespace atom::server
