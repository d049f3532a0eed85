#include <gtest/gtest.h>

#include "server/api_testing.h"

namespace atom::server {
namespace {

using test_support::ApiUnderTest;

constexpr const char* kPath = "/v1/completions";

class CompletionsTest : public ::testing::Test {
 protected:
  static Json ask(Json more = Json::object()) {
    Json body = {{"model", "tiny"}, {"prompt", "hey"}};
    body.update(more);
    return body;
  }
  Json answer(const Json& more) {
    const auto exchange = api_.answer(kPath, ask(more));
    EXPECT_EQ(exchange->response.status, 200u) << exchange->response.body;
    EXPECT_EQ(exchange->answers, 1);
    EXPECT_TRUE(exchange->ended);
    return exchange->json();
  }
  const Request& request(size_t i = 0) const { return api_.engine->submitted.at(i).request; }

  ApiUnderTest api_;
};

/// Everything but id and created, which differ from run to run.
Json without_id(Json reply) {
  EXPECT_TRUE(reply["id"].get<std::string>().size() > 20);
  EXPECT_GT(reply["created"].get<int64_t>(), 1700000000);
  reply.erase("id");
  reply.erase("created");
  return reply;
}

TEST_F(CompletionsTest, WholeReply) {
  EXPECT_EQ(without_id(answer({{"max_tokens", 8}})), Json::parse(R"({
    "object": "text_completion", "model": "tiny",
    "choices": [{"index": 0, "text": "hi!", "logprobs": null, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
              "prompt_tokens_details": {"cached_tokens": 0}}})"));
  EXPECT_EQ(request().prompt, (std::vector<int32_t>{257, 256, 'y'}));
}

TEST_F(CompletionsTest, Defaults) {
  answer(Json::object());
  const Request& asked = request();
  EXPECT_EQ(asked.max_tokens, 16);
  EXPECT_EQ(asked.n, 1);
  EXPECT_EQ(asked.sampling.temperature, 1.0f);
  EXPECT_EQ(asked.sampling.top_p, 1.0f);
  EXPECT_EQ(asked.sampling.top_k, 0);
  EXPECT_EQ(asked.stop_ids, std::vector<int32_t>{258});
  EXPECT_TRUE(asked.stop.empty());
  EXPECT_FALSE(asked.logprobs || asked.prompt_logprobs);
  EXPECT_TRUE(asked.skip_special_tokens);
  answer(Json::object());
  EXPECT_NE(request(0).sampling.seed, request(1).sampling.seed);
}

TEST_F(CompletionsTest, EverySettingReachesTheEngine) {
  answer(Json::parse(R"({"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "n": 2, "best_of": 2,
    "stop": ["x", "yz"], "presence_penalty": -2, "frequency_penalty": 1.5,
    "logit_bias": {"104": -100, "0": 2.5}, "seed": -1, "user": "me", "top_k": 7, "min_p": 0.1,
    "repetition_penalty": 1.1, "stop_token_ids": [33], "skip_special_tokens": false,
    "add_special_tokens": false, "logprobs": 3, "metadata": {"a": "b"}, "store": false,
    "service_tier": "auto", "suffix": null, "echo": null, "stream_options": null})"));
  const Request& asked = request();
  EXPECT_EQ(asked.prompt, (std::vector<int32_t>{256, 'y'}));
  EXPECT_EQ(asked.max_tokens, 5);
  EXPECT_EQ(asked.n, 2);
  EXPECT_EQ(asked.stop, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(asked.stop_ids, (std::vector<int32_t>{33, 258}));
  EXPECT_FALSE(asked.skip_special_tokens);
  EXPECT_EQ(asked.logprobs, 3);
  EXPECT_FALSE(asked.prompt_logprobs);
  const SamplingParams& sampling = asked.sampling;
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 7);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.presence_penalty, -2.0f);
  EXPECT_EQ(sampling.frequency_penalty, 1.5f);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{104, -100.0f}, {0, 2.5f}}));
  EXPECT_EQ(sampling.seed, UINT64_MAX);
}

TEST_F(CompletionsTest, IgnoreEosLeavesOnlyTheCallersStopTokens) {
  const Json reply = answer({{"ignore_eos", true}, {"stop_token_ids", {33}}});
  EXPECT_EQ(request().stop_ids, std::vector<int32_t>{33});
  EXPECT_EQ(reply["choices"][0]["text"], "hi");
}

TEST_F(CompletionsTest, FourFormsOfPrompts) {
  answer({{"prompt", "ab"}});
  EXPECT_EQ(request(0).prompt, (std::vector<int32_t>{257, 'a', 'b'}));
  answer({{"prompt", {1, 2}}});
  EXPECT_EQ(request(1).prompt, (std::vector<int32_t>{1, 2}));
}

TEST_F(CompletionsTest, SeveralPromptsTimesN) {
  for (const Json& prompts : {Json::array({"a", "bc"}), Json::parse("[[257, 97], [257, 98, 99]]")}) {
    api_.engine->submitted.clear();
    const Json reply = answer({{"prompt", prompts}, {"n", 2}});
    ASSERT_EQ(api_.engine->submitted.size(), 2u);
    EXPECT_EQ(request(0).prompt, (std::vector<int32_t>{257, 'a'}));
    EXPECT_EQ(request(1).prompt, (std::vector<int32_t>{257, 'b', 'c'}));
    ASSERT_EQ(reply["choices"].size(), 4u);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(reply["choices"][i]["index"], i);
      EXPECT_EQ(reply["choices"][i]["text"], i % 2 ? "i!" : "hi!");
    }
    // A prompt counts once.
    EXPECT_EQ(reply["usage"]["prompt_tokens"], 5);
    EXPECT_EQ(reply["usage"]["completion_tokens"], 14);
  }
}

TEST_F(CompletionsTest, RepliesComeInTheOrderOfPromptsHoweverTheyEnd) {
  const auto exchange = api_.post(kPath, ask({{"prompt", {"a", "b"}}, {"echo", true}}));
  auto& submitted = api_.engine->submitted;
  api_.engine->play(submitted[1]);
  EXPECT_EQ(exchange->answers, 0);
  api_.engine->play(submitted[0]);
  EXPECT_EQ(exchange->json()["choices"][0]["text"], "ahi!");
  EXPECT_EQ(exchange->json()["choices"][1]["text"], "bhi!");
}

TEST_F(CompletionsTest, LogprobsHaveThePlacesOfTheirTokens) {
  api_.engine->answer = {0xC3, 0xA9, 'x', 258};
  const Json reply = answer({{"logprobs", 2}});
  const Json& logprobs = reply["choices"][0]["logprobs"];
  EXPECT_EQ(reply["choices"][0]["text"], "\xC3\xA9x");
  EXPECT_EQ(logprobs["tokens"], Json::array({"bytes:\\xc3", "bytes:\\xa9", "x", "</s>"}));
  EXPECT_EQ(logprobs["text_offset"], Json::array({0, 0, 1, 2}));
  EXPECT_EQ(logprobs["token_logprobs"], Json::array({-1.0, -0.5, -0.25, -0.75}));
  // The two most likely, and the token itself.
  EXPECT_EQ(logprobs["top_logprobs"][2], Json::parse(R"({"y": -0.1, "z": -0.2, "x": -0.25})"));
}

TEST_F(CompletionsTest, EchoWithLogprobs) {
  const Json reply = answer({{"prompt", "hey\xC3\xA9"}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}});
  EXPECT_EQ(request().prompt_logprobs, 1);
  const Json& choice = reply["choices"][0];
  EXPECT_EQ(choice["text"], "hey\xC3\xA9h");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::array({"<s>", "he", "y", "bytes:\\xc3", "bytes:\\xa9", "h"}));
  EXPECT_EQ(logprobs["text_offset"], Json::array({0, 0, 2, 3, 3, 4}));
  EXPECT_EQ(logprobs["token_logprobs"], Json::parse("[null, -0.25, -0.5, -1.0, -0.5, -0.25]"));
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["top_logprobs"].size(), 6u);
}

TEST_F(CompletionsTest, EchoOfTokens) {
  const Json body = {{"prompt", {257, 'a', 259, 'b'}}, {"echo", true}, {"logprobs", 0}, {"max_tokens", 0}};
  Json reply = answer(body);
  EXPECT_EQ(reply["choices"][0]["text"], "ab");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply["choices"][0]["logprobs"]["text_offset"], Json::array({0, 0, 1, 1}));
  EXPECT_EQ(reply["choices"][0]["logprobs"]["top_logprobs"][1], Json::parse(R"({"a": -0.5})"));
  EXPECT_EQ(reply["usage"]["completion_tokens"], 0);
  Json with_special = body;
  with_special["skip_special_tokens"] = false;
  reply = answer(with_special);
  EXPECT_EQ(reply["choices"][0]["text"], "<s>a<|sys|>b");
  EXPECT_EQ(reply["choices"][0]["logprobs"]["text_offset"], Json::array({0, 3, 4, 11}));
}

TEST_F(CompletionsTest, WhatJsonHasNoNumberForIsVeryUnlikely) {
  const auto exchange = api_.post(kPath, ask({{"logprobs", 0}}));
  Delta delta{.tokens = {'a'}, .logprobs = {{'a', -INFINITY, {}}}, .finish_reason = FinishReason::length};
  api_.engine->submitted[0].listener->on_delta(delta);
  EXPECT_EQ(exchange->json()["choices"][0]["logprobs"]["token_logprobs"][0], -9999.0);
}

TEST_F(CompletionsTest, Stream) {
  api_.engine->cached_tokens = 2;
  const auto exchange =
      api_.answer(kPath, ask({{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  EXPECT_TRUE(exchange->streams && exchange->ended && exchange->done());
  EXPECT_EQ(exchange->response.content_type, "text/event-stream; charset=utf-8");
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 5u) << exchange->response.body;
  std::string text;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    EXPECT_EQ(events[i]["object"], "text_completion");
    EXPECT_TRUE(events[i]["usage"].is_null());
    text += events[i]["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(events[i]["choices"][0]["finish_reason"], i == 3 ? Json("stop") : Json(nullptr));
  }
  EXPECT_EQ(text, "hi!");
  EXPECT_TRUE(events[4]["choices"].empty());
  EXPECT_EQ(events[4]["usage"], Json::parse(R"({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                                               "prompt_tokens_details": {"cached_tokens": 2}})"));
}

TEST_F(CompletionsTest, StreamsAddUpToTheWholeReply) {
  api_.engine->answer = {'a', 0xC3, 0xA9, 'x', 'y', 'z', 258};
  for (const Json& more : {Json::object(), Json::parse(R"({"echo": true})"), Json::parse(R"({"n": 3})"),
                           Json::parse(R"({"prompt": ["q", "r"], "n": 2, "echo": true, "logprobs": 2})"),
                           Json::parse(R"({"max_tokens": 0, "echo": true, "logprobs": 1})"),
                           Json::parse(R"({"stop": "yz", "logprobs": 1, "return_token_ids": true})")}) {
    Json whole = answer(more);
    api_.engine->submitted.clear();
    Json streamed = more;
    streamed["stream"] = true;
    const auto exchange = api_.answer(kPath, ask(streamed));
    api_.engine->submitted.clear();
    Json sum = Json::array();
    for (const Json& event : exchange->events()) {
      ASSERT_EQ(event["choices"].size(), 1u);
      EXPECT_FALSE(event.contains("usage"));
      const Json& piece = event["choices"][0];
      const size_t index = piece["index"];
      while (sum.size() <= index) sum.push_back(nullptr);
      Json& total = sum[index];
      if (total.is_null()) {
        total = piece;
        continue;
      }
      EXPECT_TRUE(total["finish_reason"].is_null());
      total["text"] = total["text"].get<std::string>() + piece["text"].get<std::string>();
      total["finish_reason"] = piece["finish_reason"];
      for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
        if (piece["logprobs"].is_null()) break;
        for (const Json& item : piece["logprobs"][list]) total["logprobs"][list].push_back(item);
      }
      if (piece.contains("token_ids")) {
        for (const Json& item : piece["token_ids"]) total["token_ids"].push_back(item);
      }
    }
    EXPECT_EQ(sum, whole["choices"]) << more;
  }
}

TEST_F(CompletionsTest, TextHeldBackMakesNoEvent) {
  api_.engine->answer = {0xC3, 0xA9, 258};
  const auto exchange = api_.answer(kPath, ask({{"stream", true}}));
  ASSERT_EQ(exchange->events().size(), 2u) << exchange->response.body;
  EXPECT_EQ(exchange->events()[0]["choices"][0]["text"], "\xC3\xA9");
}

}  // namespace
}  // namespace atom::server
