#include <gtest/gtest.h>

#include "server/api_testing.h"

namespace atom::server {
namespace {

using test_support::ApiUnderTest;

constexpr const char* kPath = "/v1/chat/completions";

class ChatTest : public ::testing::Test {
 protected:
  static Json ask(Json more = Json::object()) {
    Json body = {{"model", "tiny"}, {"messages", {{{"role", "user"}, {"content", "yo"}}}}};
    body.update(more);
    return body;
  }
  Json answer(const Json& more) {
    const auto exchange = api_.answer(kPath, ask(more));
    EXPECT_EQ(exchange->response.status, 200u) << exchange->response.body;
    return exchange->json();
  }
  const Request& request(size_t i = 0) const { return api_.engine->submitted.at(i).request; }
  std::string prompt(size_t i = 0) const { return api_.tokenizer.decode(request(i).prompt); }

  ApiUnderTest api_;
};

TEST_F(ChatTest, WholeReply) {
  Json reply = answer(Json::object());
  EXPECT_TRUE(reply["id"].get<std::string>().starts_with("chatcmpl-"));
  reply.erase("id");
  reply.erase("created");
  EXPECT_EQ(reply, Json::parse(R"({
    "object": "chat.completion", "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi!", "refusal": null},
                 "logprobs": null, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15,
              "prompt_tokens_details": {"cached_tokens": 0}}})"));
  EXPECT_EQ(prompt(), "<user>yo<a>");
  // Until the context is full.
  EXPECT_FALSE(request().max_tokens);
}

TEST_F(ChatTest, MessagesAsClientsWriteThem) {
  answer(Json::parse(R"({"messages": [
    {"role": "developer", "content": "Be", "name": "boss"},
    {"role": "system", "content": [{"type": "text", "text": "k"}, {"type": "text", "text": "ind"}]},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "ok", "refusal": null, "annotations": [], "audio": null,
     "function_call": null, "tool_calls": null},
    {"role": "user", "content": "go"}]})"));
  EXPECT_EQ(prompt(), "<system>Be<system>kind<user><assistant>ok<user>go<a>");
}

TEST_F(ChatTest, Settings) {
  answer(Json::parse(R"({"max_completion_tokens": 2, "max_tokens": 2, "temperature": 0, "n": 2, "seed": 9,
    "logprobs": true, "top_logprobs": 1, "response_format": {"type": "text"}, "tool_choice": "none",
    "modalities": ["text"], "tools": null, "safety_identifier": "x", "prompt_cache_key": "y", "stop": "no"})"));
  EXPECT_EQ(request().max_tokens, 2);
  EXPECT_EQ(request().n, 2);
  EXPECT_EQ(request().logprobs, 1);
  EXPECT_EQ(request().sampling.seed, 9u);
  EXPECT_EQ(request().sampling.temperature, 0.0f);
  EXPECT_EQ(request().stop, std::vector<std::string>{"no"});
  answer({{"max_tokens", 3}});
  EXPECT_EQ(request(1).max_tokens, 3);
  EXPECT_EQ(request(1).sampling.temperature, 1.0f);
}

TEST_F(ChatTest, LogprobsWithBytesAndWithoutTheEnd) {
  api_.engine->answer = {'h', 0xC3, 0xA9, 258};
  const Json reply = answer({{"logprobs", true}, {"top_logprobs", 1}});
  const Json& logprobs = reply["choices"][0]["logprobs"];
  EXPECT_TRUE(logprobs["refusal"].is_null());
  ASSERT_EQ(logprobs["content"].size(), 3u);
  EXPECT_EQ(logprobs["content"][0], Json::parse(R"({"token": "h", "logprob": -0.25, "bytes": [104],
    "top_logprobs": [{"token": "i", "logprob": -0.1, "bytes": [105]}]})"));
  EXPECT_EQ(logprobs["content"][1]["token"], "\\xc3");
  EXPECT_EQ(logprobs["content"][1]["bytes"], Json::array({0xC3}));
  const Json none = answer({{"logprobs", true}});
  EXPECT_TRUE(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"].empty());
}

TEST_F(ChatTest, Stream) {
  const auto exchange =
      api_.answer(kPath, ask({{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  EXPECT_TRUE(exchange->streams && exchange->ended && exchange->done());
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 6u) << exchange->response.body;
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0], Json::parse(R"({"index": 0, "delta": {"role": "assistant", "content": "",
    "refusal": null}, "logprobs": null, "finish_reason": null})"));
  EXPECT_EQ(events[1]["choices"][0]["delta"], Json::parse(R"({"content": "h"})"));
  EXPECT_EQ(events[2]["choices"][0]["delta"], Json::parse(R"({"content": "i"})"));
  EXPECT_EQ(events[3]["choices"][0]["delta"], Json::parse(R"({"content": "!"})"));
  EXPECT_EQ(events[4]["choices"][0],
            Json::parse(R"({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"})"));
  EXPECT_TRUE(events[4]["usage"].is_null());
  EXPECT_TRUE(events[5]["choices"].empty());
  EXPECT_EQ(events[5]["usage"]["total_tokens"], 15);
}

TEST_F(ChatTest, StreamOfSeveralChoicesWithLogprobs) {
  const auto exchange = api_.answer(
      kPath, ask({{"stream", true}, {"n", 3}, {"logprobs", true}, {"top_logprobs", 2}, {"max_tokens", 2}}));
  std::vector<std::string> texts(3), finishes(3);
  std::vector<int> roles(3), tokens(3);
  for (const Json& event : exchange->events()) {
    EXPECT_FALSE(event.contains("usage"));
    const Json& choice = event["choices"][0];
    const size_t i = choice["index"];
    EXPECT_TRUE(finishes[i].empty());
    if (choice["delta"].contains("role")) {
      EXPECT_EQ(roles[i]++, 0);
      EXPECT_TRUE(texts[i].empty());
    }
    if (choice["delta"].contains("content")) texts[i] += choice["delta"]["content"].get<std::string>();
    if (!choice["logprobs"].is_null()) tokens[i] += static_cast<int>(choice["logprobs"]["content"].size());
    if (!choice["finish_reason"].is_null()) finishes[i] = choice["finish_reason"];
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"hi", "i!", "!"}));
  EXPECT_EQ(finishes, (std::vector<std::string>{"length", "length", "stop"}));
  EXPECT_EQ(roles, (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(tokens, (std::vector<int>{2, 2, 1}));
}

TEST(Chat, NeedsATemplate) {
  ApiUnderTest api(false);
  const auto exchange = api.post(
      kPath, {{"model", "tiny"}, {"messages", Json::array({{{"role", "user"}, {"content", "yo"}}})}});
  EXPECT_EQ(exchange->response.status, 400u);
  EXPECT_NE(exchange->response.body.find("chat template"), std::string::npos);
}

}  // namespace
}  // namespace atom::server
