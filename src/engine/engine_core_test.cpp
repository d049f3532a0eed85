#include "engine/engine_core.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "engine/engine_testing.h"
#include "engine/generator.h"
#include "engine/tiny_model_testing.h"

namespace atom {
namespace {

constexpr int64_t kContext = 96;

EngineOptions options_with(int64_t n_blocks, int64_t max_step_tokens = 64, int64_t block_size = 4) {
  EngineOptions options;
  options.context = kContext;
  options.kv_format = KvFormat::int4;
  options.block_size = block_size;
  options.n_blocks = n_blocks;
  options.max_running = 16;
  options.max_step_tokens = max_step_tokens;
  options.check_blocks = true;
  return options;
}

class EngineCoreTest : public ::testing::Test {
 protected:
  EngineCore make(const EngineOptions& options) const {
    return EngineCore(*tiny_.model, *tiny_.tokenizer, options);
  }

  Request request(size_t prompt_tokens, int64_t max_tokens, uint64_t seed = 1) const {
    Request request;
    request.prompt = tiny_.random_tokens(prompt_tokens, seed);
    request.max_tokens = max_tokens;
    return request;
  }

  /// One step; false when there is nothing to do.
  static bool step(EngineCore& core) {
    const bool busy = core.prepare();
    core.publish();
    if (busy) {
      core.plan_ahead();
      core.compute();
      core.apply();
    }
    return busy;
  }

  static void finish(EngineCore& core) {
    while (step(core)) {
    }
    core.publish();
    EXPECT_FALSE(core.has_work());
    core.check();
    EngineStats stats;
    core.fill(stats);
    EXPECT_EQ(stats.free_blocks, stats.blocks);
    EXPECT_EQ(stats.running + stats.waiting, 0);
  }

  /// What the generator, which has the model to itself, says.
  GenerationResult expected(const Request& request, int choice = 0) const {
    Generator generator(*tiny_.model, *tiny_.tokenizer, kContext, KvFormat::int4);
    GenerationRequest asked;
    asked.prompt = request.prompt;
    asked.max_tokens = request.max_tokens;
    asked.sampling = request.sampling;
    asked.sampling.seed += static_cast<uint64_t>(choice);
    asked.stop = request.stop;
    asked.stop_ids = request.stop_ids;
    return generator.generate(asked);
  }

  void expect_right(const Request& request, const Recorder& recorder) const {
    ASSERT_EQ(recorder.error(), "");
    EXPECT_EQ(recorder.late(), 0);
    EXPECT_EQ(recorder.prompts(), 1);
    for (int i = 0; i < request.n; ++i) {
      const GenerationResult result = expected(request, i);
      EXPECT_EQ(recorder.choice(i).text, result.text);
      EXPECT_EQ(recorder.choice(i).tokens, result.tokens);
      EXPECT_EQ(recorder.choice(i).finish_reason, result.finish_reason);
    }
  }

  /// Runs requests together, each arriving some steps behind the one before.
  void run_together(EngineCore& core, const std::vector<Request>& requests, int steps_between) const {
    std::vector<std::shared_ptr<Recorder>> recorders;
    for (const Request& request : requests) {
      recorders.push_back(std::make_shared<Recorder>(request.n));
      core.add(next_id_++, request, recorders.back());
      for (int i = 0; i < steps_between; ++i) step(core);
    }
    finish(core);
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(i);
      expect_right(requests[i], *recorders[i]);
    }
  }

  std::vector<Request> mixed_requests(int count) const {
    std::vector<Request> requests;
    for (int i = 0; i < count; ++i) {
      Request one =
          request(1 + static_cast<size_t>(i * 7 % 40), 1 + i * 5 % 30, 100 + static_cast<uint64_t>(i));
      if (i % 3 == 1) {
        one.sampling.temperature = 0.9f;
        one.sampling.top_p = 0.95f;
        one.sampling.seed = static_cast<uint64_t>(i);
      }
      if (i % 4 == 2) {
        one.sampling.repetition_penalty = 1.3f;
        one.sampling.frequency_penalty = 0.4f;
      }
      requests.push_back(std::move(one));
    }
    return requests;
  }

  TinyModel tiny_;
  mutable uint64_t next_id_ = 1;
};

TEST_F(EngineCoreTest, AnswersAreThoseOfTheModelAlone) {
  for (const int64_t step_tokens : {17, 64, 1000}) {
    for (const int steps_between : {0, 1, 5}) {
      EngineCore core = make(options_with(400, step_tokens));
      run_together(core, mixed_requests(24), steps_between);
    }
  }
}

TEST_F(EngineCoreTest, PreemptionDoesNotChangeAnswers) {
  for (const int64_t block_size : {1, 4, 16}) {
    // Little more than one sequence of full length needs.
    EngineCore core = make(options_with(kContext / block_size + 4, 64, block_size));
    run_together(core, mixed_requests(24), 1);
    EngineStats stats;
    core.fill(stats);
    EXPECT_GT(stats.preemptions, 0u);
  }
}

TEST_F(EngineCoreTest, APrefixThatIsCachedDoesNotChangeAnswers) {
  EngineCore core = make(options_with(400));
  std::vector<Request> requests;
  const std::vector<int32_t> shared = tiny_.random_tokens(37);
  for (uint64_t i = 0; i < 10; ++i) {
    Request one = request(1 + i, 12, 50 + i);
    one.prompt.insert(one.prompt.begin(), shared.begin(), shared.end());
    requests.push_back(one);
    requests.push_back(one);
  }
  run_together(core, requests, 3);
  EngineStats stats;
  core.fill(stats);
  EXPECT_GE(stats.cached_prompt_tokens, 18u * 36u);
  EngineOptions without = options_with(400);
  without.prefix_caching = false;
  EngineCore cold = make(without);
  run_together(cold, requests, 3);
  cold.fill(stats);
  EXPECT_EQ(stats.cached_prompt_tokens, 0u);
}

TEST_F(EngineCoreTest, TheNextTurnOfAChatFindsTheAnswerInTheCache) {
  EngineCore core = make(options_with(100));
  const Request first = request(20, 21);
  auto recorder = std::make_shared<Recorder>();
  core.add(1, first, recorder);
  finish(core);
  Request second = first;
  const auto& answer = recorder->choice().tokens;
  second.prompt.insert(second.prompt.end(), answer.begin(), answer.end());
  second.prompt.push_back(3);
  auto again = std::make_shared<Recorder>();
  core.add(2, second, again);
  finish(core);
  expect_right(second, *again);
  EXPECT_EQ(again->prompt().cached_tokens, 40);
}

TEST_F(EngineCoreTest, ChoicesShareThePromptAndGoTheirOwnWays) {
  for (const int64_t n_blocks : {30, 400}) {
    EngineCore core = make(options_with(n_blocks));
    std::vector<Request> requests = mixed_requests(9);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].n = 1 + static_cast<int>(i) % 5;
      requests[i].sampling.temperature = 1.0f;
    }
    run_together(core, requests, 2);
  }
}

TEST_F(EngineCoreTest, ChoicesHoldThePromptOnce) {
  EngineCore core = make(options_with(100));
  Request one = request(40, 8);
  one.n = 8;
  one.sampling.temperature = 1.0f;
  auto recorder = std::make_shared<Recorder>(8);
  core.add(1, one, recorder);
  for (int i = 0; i < 3; ++i) step(core);
  EngineStats stats;
  core.fill(stats);
  EXPECT_EQ(stats.running, 8);
  // 10 blocks of the prompt and one of each choice.
  EXPECT_EQ(stats.blocks - stats.free_blocks, 10 + 8);
  finish(core);
  expect_right(one, *recorder);
}

TEST_F(EngineCoreTest, StopStringsAndTokens) {
  EngineCore core = make(options_with(200));
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Request one = request(5, 40, seed);
    const GenerationResult free = expected(one);
    one.stop = {free.text.substr(free.text.size() / 2, 2)};
    if (one.stop[0].empty()) one.stop = {};
    if (seed % 2 == 1) one.stop_ids = {free.tokens[10]};
    requests.push_back(one);
  }
  run_together(core, requests, 1);
}

TEST_F(EngineCoreTest, LogprobsAreTheModelsOwn) {
  for (const int64_t step_tokens : {17, 200}) {
    for (const int64_t n_blocks : {26, 300}) {
      EngineCore core = make(options_with(n_blocks, step_tokens));
      std::vector<Request> requests;
      std::vector<std::shared_ptr<Recorder>> recorders;
      for (uint64_t i = 0; i < 6; ++i) {
        Request one = request(10 + 7 * i, 9, i / 2);
        one.logprobs = 3;
        one.prompt_logprobs = 2;
        one.sampling.repetition_penalty = i % 2 == 0 ? 1.0f : 1.5f;
        requests.push_back(one);
        recorders.push_back(std::make_shared<Recorder>());
        core.add(i + 1, one, recorders.back());
      }
      finish(core);
      for (size_t i = 0; i < requests.size(); ++i) {
        const Recorder& recorder = *recorders[i];
        expect_right(requests[i], recorder);
        std::vector<int32_t> tokens = requests[i].prompt;
        tokens.insert(tokens.end(), recorder.choice().tokens.begin(), recorder.choice().tokens.end());
        std::vector<TokenLogprob> told = recorder.prompt().logprobs;
        ASSERT_EQ(told.size(), requests[i].prompt.size() - 1);
        const auto& answer = recorder.choice().logprobs;
        told.insert(told.end(), answer.begin(), answer.end());
        ASSERT_EQ(told.size(), tokens.size() - 1);

        PagedKvCache cache(tiny_.model->kv_shape(), KvFormat::int4, 8);
        BlockTable table(cache);
        Runner runner(*tiny_.model, cache);
        const Chunk chunk{&table, tokens};
        const auto hidden = runner.step({&chunk, 1});
        std::vector<double> losses(tokens.size() - 1);
        runner.negative_log_likelihoods(hidden.row_range(0, hidden.rows - 1), std::span(tokens).subspan(1),
                                        losses);
        for (size_t j = 0; j < told.size(); ++j) {
          EXPECT_EQ(told[j].token, tokens[j + 1]);
          EXPECT_NEAR(told[j].logprob, -losses[j], 1e-5);
          ASSERT_EQ(told[j].top.size(), j + 1 < requests[i].prompt.size() ? 2u : 3u);
          EXPECT_GE(told[j].top[0].second, told[j].top[1].second);
          EXPECT_GE(told[j].top[0].second + 1e-6f, told[j].logprob);
        }
      }
    }
  }
}

TEST_F(EngineCoreTest, NoTokensAtAll) {
  EngineCore core = make(options_with(100));
  Request one = request(kContext, 0);
  one.prompt_logprobs = 0;
  one.n = 2;
  auto recorder = std::make_shared<Recorder>(2);
  core.add(1, one, recorder);
  finish(core);
  EXPECT_EQ(recorder->prompt().logprobs.size(), static_cast<size_t>(kContext - 1));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(recorder->choice(i).finish_reason, FinishReason::length);
    EXPECT_TRUE(recorder->choice(i).tokens.empty());
  }
}

TEST_F(EngineCoreTest, WithoutALimitTheContextIsFilled) {
  EngineCore core = make(options_with(100));
  Request one = request(30, 1);
  one.max_tokens.reset();
  auto recorder = std::make_shared<Recorder>();
  core.add(1, one, recorder);
  finish(core);
  EXPECT_EQ(recorder->choice().tokens.size(), static_cast<size_t>(kContext - 30));
  EXPECT_EQ(recorder->choice().finish_reason, FinishReason::length);
}

TEST_F(EngineCoreTest, CancellationAtEveryMoment) {
  for (int moment = 0; moment < 30; ++moment) {
    EngineCore core = make(options_with(40, 20));
    std::vector<Request> requests = mixed_requests(4);
    requests[1].n = 3;
    requests[1].sampling.temperature = 1.0f;
    std::vector<std::shared_ptr<Recorder>> recorders;
    for (size_t i = 0; i < requests.size(); ++i) {
      recorders.push_back(std::make_shared<Recorder>(requests[i].n));
      core.add(i + 1, requests[i], recorders.back());
    }
    for (int i = 0; i < moment; ++i) step(core);
    // In the middle of a step.
    const bool busy = core.prepare();
    core.cancel(2);
    core.publish();
    if (busy) {
      core.compute();
      core.cancel(2);
      core.apply();
    }
    finish(core);
    core.cancel(2);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (i != 1) expect_right(requests[i], *recorders[i]);
    }
    ASSERT_TRUE(recorders[1]->done());
    EXPECT_EQ(recorders[1]->late(), 0);
    for (int i = 0; i < 3; ++i) {
      const GenerationResult whole = expected(requests[1], i);
      const auto& got = recorders[1]->choice(i);
      if (got.finish_reason != FinishReason::cancelled) {
        EXPECT_EQ(got.tokens, whole.tokens);
        continue;
      }
      ASSERT_LE(got.tokens.size(), whole.tokens.size());
      EXPECT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), whole.tokens.begin()));
    }
  }
}

TEST_F(EngineCoreTest, TheEndOfARequestIsToldOnce) {
  // Its last token is there and yet to be told when the request is cancelled, or all of them are ended.
  for (const bool cancels : {true, false}) {
    EngineCore core = make(options_with(100));
    const Request one = request(20, 1);
    auto recorder = std::make_shared<Recorder>();
    core.add(1, one, recorder);
    step(core);
    if (cancels) {
      core.cancel(1);
    } else {
      core.fail_all("over");
    }
    finish(core);
    expect_right(one, *recorder);
  }
}

TEST_F(EngineCoreTest, AllAreTold) {
  for (int moment = 0; moment < 12; ++moment) {
    EngineCore core = make(options_with(40, 20));
    const std::vector<Request> requests = mixed_requests(10);
    std::vector<std::shared_ptr<Recorder>> recorders;
    for (size_t i = 0; i < requests.size(); ++i) {
      recorders.push_back(std::make_shared<Recorder>());
      core.add(i + 1, requests[i], recorders.back());
    }
    for (int i = 0; i < moment; ++i) step(core);
    // In the middle of a step, as when its computation has failed.
    if (moment % 2 == 1) core.prepare();
    core.fail_all("over");
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_TRUE(recorders[i]->done());
      EXPECT_EQ(recorders[i]->late(), 0);
      if (recorders[i]->error().empty()) expect_right(requests[i], *recorders[i]);
    }
    EXPECT_EQ(core.queued(), 0);
    // It is as new.
    const Request one = request(20, 10);
    auto recorder = std::make_shared<Recorder>();
    core.add(100, one, recorder);
    finish(core);
    expect_right(one, *recorder);
  }
}

TEST_F(EngineCoreTest, ARequestThatCanNotBeAddedLeavesNothing) {
  EngineCore core = make(options_with(100));
  Request one = request(20, 1);
  one.sampling.top_p = 0;
  EXPECT_THROW(core.add(1, one, std::make_shared<Recorder>()), UsageError);
  EXPECT_EQ(core.queued(), 0);
  finish(core);
}

TEST_F(EngineCoreTest, LogprobsOfAPromptAreComputedOnce) {
  // Preempted sequences that are past their prompt go on as those without log-probabilities do.
  std::vector<EngineStats> stats(2);
  for (size_t k = 0; k < 2; ++k) {
    EngineCore core = make(options_with(kContext / 4 + 4));
    for (uint64_t i = 0; i < 8; ++i) {
      Request one = request(30, 40, i);
      if (k == 1) one.prompt_logprobs = 0;
      core.add(i + 1, one, std::make_shared<Recorder>());
    }
    finish(core);
    core.fill(stats[k]);
  }
  EXPECT_GT(stats[0].preemptions, 0u);
  EXPECT_EQ(stats[0].preemptions, stats[1].preemptions);
  EXPECT_EQ(stats[0].step_tokens, stats[1].step_tokens);
}

/// Makes a token's embedding NaN, behind the back of the model, which would not load it: it is where the file
/// is mapped.
void poison(const TinyModel& model, const test_support::TinyLlama& shape, int32_t token) {
  const std::vector<float> embeddings = test_support::make_tiny_tensors(shape).front().values;
  const auto row = std::span(embeddings)
                       .subspan(static_cast<size_t>(token * shape.hidden), static_cast<size_t>(shape.hidden));
  std::fstream file(model.checkpoint->path(), std::ios::in | std::ios::out | std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  const size_t place = bytes.find(test_support::encode_values({row.begin(), row.end()}, 0));
  ASSERT_NE(place, std::string::npos);
  const float nan = std::nanf("");
  file.clear();
  file.seekp(static_cast<std::streamoff>(place));
  file.write(reinterpret_cast<const char*>(&nan), sizeof nan);
}

TEST_F(EngineCoreTest, LogitsThatAreNotFiniteEndTheirRequestAlone) {
  constexpr int32_t kPoison = 287;
  test_support::TinyLlama shape;
  shape.tied = false;
  const TinyModel model(shape);
  poison(model, shape, kPoison);
  const auto clean = [&](uint64_t seed) {
    Request one = request(20, 12, seed);
    for (int32_t& token : one.prompt) token %= kPoison;
    one.sampling.logit_bias = {{kPoison, -100.0f}};
    return one;
  };
  EngineCore core(*model.model, *model.tokenizer, options_with(100));
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 8; ++i) requests.push_back(clean(i));
  // One each whose first token can't be drawn, of two choices, and whose prompt has no log-probabilities.
  for (const size_t i : {2, 3}) requests[i].prompt.back() = kPoison;
  requests[3].n = 2;
  requests[5].prompt[10] = kPoison;
  requests[5].prompt_logprobs = 1;
  requests[5].max_tokens = 0;
  // And one that comes to it later.
  requests[6].sampling.logit_bias = {{kPoison, 100.0f}};
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (size_t i = 0; i < requests.size(); ++i) {
    recorders.push_back(std::make_shared<Recorder>(requests[i].n));
    core.add(i + 1, requests[i], recorders.back());
    step(core);
  }
  finish(core);
  Generator generator(*model.model, *model.tokenizer, kContext, KvFormat::int4);
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(recorders[i]->done());
    EXPECT_EQ(recorders[i]->late(), 0);
    if (i == 2 || i == 3 || i == 5 || i == 6) {
      EXPECT_NE(recorders[i]->error().find("finite"), std::string::npos) << recorders[i]->error();
      EXPECT_EQ(recorders[i]->has(0), i == 6);
      continue;
    }
    GenerationRequest asked;
    asked.prompt = requests[i].prompt;
    asked.max_tokens = requests[i].max_tokens;
    asked.sampling = requests[i].sampling;
    EXPECT_EQ(recorders[i]->choice().tokens, generator.generate(asked).tokens);
  }
}

TEST_F(EngineCoreTest, AThousandRandomRequests) {
  Random random(7);
  EngineCore core = make(options_with(28, 40));
  std::vector<Request> requests;
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<bool> cancelled;
  const std::vector<int32_t> shared = tiny_.random_tokens(40, 9);
  while (requests.size() < 1000) {
    for (uint64_t i = random.below(4); i > 0; --i) {
      Request one = request(1 + random.below(20), static_cast<int64_t>(random.below(13)), random.next());
      if (random.below(2) == 0) {
        one.prompt.insert(one.prompt.begin(), shared.begin(),
                          shared.begin() + static_cast<int64_t>(random.below(40)));
      }
      one.sampling.temperature = random.below(2) == 0 ? 0.0f : 0.8f;
      one.sampling.seed = random.next();
      if (random.below(8) == 0) one.n = 2 + static_cast<int>(random.below(3));
      if (random.below(4) == 0) one.stop = {std::string(1, static_cast<char>('a' + random.below(26))), "t"};
      if (random.below(4) == 0) one.stop_ids = tiny_.random_tokens(20, random.next());
      if (random.below(6) == 0) one.prompt_logprobs = 1;
      recorders.push_back(std::make_shared<Recorder>(one.n));
      requests.push_back(one);
      cancelled.push_back(false);
      core.add(requests.size(), one, recorders.back());
    }
    const auto cancel_one = [&] {
      if (requests.empty() || random.below(20) != 0) return;
      const uint64_t back = random.below(std::min<uint64_t>(20, requests.size()));
      const uint64_t id = requests.size() - back;
      cancelled[id - 1] = true;
      core.cancel(id);
    };
    for (int i = 0; i < 3; ++i) {
      cancel_one();
      const bool busy = core.prepare();
      cancel_one();
      core.publish();
      cancel_one();
      if (!busy) continue;
      core.plan_ahead();
      core.compute();
      cancel_one();
      core.apply();
    }
  }
  finish(core);
  EngineStats stats;
  core.fill(stats);
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_GT(stats.cached_prompt_tokens, 0u);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(recorders[i]->done());
    EXPECT_EQ(recorders[i]->late(), 0);
    if (cancelled[i]) continue;
    EXPECT_EQ(recorders[i]->prompt().logprobs.size(),
              requests[i].prompt_logprobs ? requests[i].prompt.size() - 1 : 0);
    if (i % 7 == 0) expect_right(requests[i], *recorders[i]);
  }
}

}  // namespace
}  // namespace atom
