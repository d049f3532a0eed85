#include "engine/engine.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine_testing.h"
#include "engine/generator.h"
#include "engine/tiny_model_testing.h"

namespace atom {
namespace {

EngineOptions small_options() {
  EngineOptions options;
  options.context = 128;
  options.n_blocks = 32;
  options.max_running = 8;
  options.max_step_tokens = 48;
  options.check_blocks = true;
  return options;
}

class EngineTest : public ::testing::Test {
 protected:
  Request request(size_t prompt_tokens, int64_t max_tokens, uint64_t seed = 1) const {
    Request request;
    request.prompt = tiny_.random_tokens(prompt_tokens, seed);
    request.max_tokens = max_tokens;
    return request;
  }

  /// Until the last step has given everything back.
  static void wait_until_idle(const Engine& engine) {
    while (!engine.idle()) std::this_thread::yield();
  }

  TinyModel tiny_;
};

TEST_F(EngineTest, RequestsOfManyThreads) {
  std::vector<Request> requests;
  std::vector<GenerationResult> expected;
  Generator generator(*tiny_.model, *tiny_.tokenizer, 128, KvFormat::int4);
  for (uint64_t i = 0; i < 24; ++i) {
    requests.push_back(request(3 + i * 3 % 50, 1 + static_cast<int64_t>(i), i));
    GenerationRequest asked;
    asked.prompt = requests.back().prompt;
    asked.max_tokens = requests.back().max_tokens;
    expected.push_back(generator.generate(asked));
  }
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < requests.size(); i += 4) {
        auto recorder = std::make_shared<Recorder>();
        engine.submit(requests[i], recorder);
        recorder->wait();
        if (recorder->choice().tokens == expected[i].tokens && recorder->choice().text == expected[i].text) {
          ++right;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 24);
  wait_until_idle(engine);
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.requests, 24u);
  EXPECT_EQ(stats.free_blocks, stats.blocks);
  EXPECT_GT(stats.forward_seconds, 0);
  EXPECT_GE(stats.step_seconds, stats.forward_seconds);
}

TEST_F(EngineTest, CancellationFreesEverything) {
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 12; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    ids.push_back(engine.submit(request(10, 100, i), recorders.back()));
  }
  recorders[0]->wait_for_token();
  for (const uint64_t id : ids) engine.cancel(id);
  for (const auto& recorder : recorders) {
    recorder->wait();
    EXPECT_EQ(recorder->choice().finish_reason, FinishReason::cancelled);
  }
  engine.cancel(4711);
  wait_until_idle(engine);
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
  EXPECT_EQ(engine.stats().cancelled, 12u);
}

TEST_F(EngineTest, RefusesWhatItCanNotDo) {
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  const auto refused = [&](auto change) {
    Request one = request(5, 5);
    change(one);
    engine.submit(one, std::make_shared<Recorder>());
  };
  EXPECT_THROW(refused([](Request& r) { r.prompt.clear(); }), Error);
  EXPECT_THROW(refused([](Request& r) { r.prompt = {-1}; }), Error);
  EXPECT_THROW(refused([&](Request& r) { r.prompt = {static_cast<int32_t>(tiny_.model->config().vocab)}; }),
               Error);
  EXPECT_THROW(refused([](Request& r) { r.prompt.resize(128); }), ContextExceeded);
  EXPECT_NO_THROW(refused([](Request& r) { r.prompt.resize(128), r.max_tokens = 0; }));
  EXPECT_THROW(refused([](Request& r) { r.max_tokens = -1; }), Error);
  EXPECT_THROW(refused([](Request& r) { r.n = 0; }), Error);
  EXPECT_THROW(refused([](Request& r) { r.n = 9; }), Error);
  EXPECT_THROW(refused([](Request& r) { r.logprobs = 21; }), Error);
  EXPECT_THROW(refused([](Request& r) { r.sampling.top_p = 0; }), UsageError);
  EXPECT_THROW(refused([](Request& r) { r.sampling.logit_bias = {{1 << 20, 1.0f}}; }), Error);
}

TEST_F(EngineTest, AFullQueueRefuses) {
  EngineOptions options = small_options();
  options.max_running = 1;
  options.max_waiting = 2;
  Engine engine(*tiny_.model, *tiny_.tokenizer, options);
  std::vector<std::shared_ptr<Recorder>> recorders;
  int refused = 0;
  for (uint64_t i = 0; i < 30; ++i) {
    auto recorder = std::make_shared<Recorder>();
    try {
      engine.submit(request(20, 100, i), recorder);
      recorders.push_back(recorder);
    } catch (const Overloaded&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(engine.stats().refused, static_cast<uint64_t>(refused));
  for (const auto& recorder : recorders) {
    recorder->wait();
    EXPECT_EQ(recorder->error(), "");
  }
  EXPECT_EQ(engine.stats().requests, recorders.size());
}

TEST_F(EngineTest, ManyAreTakenTogetherOrNotAtAll) {
  EngineOptions options = small_options();
  options.max_running = 4;
  options.max_waiting = 4;
  Engine engine(*tiny_.model, *tiny_.tokenizer, options);
  const auto submit = [&](size_t count, const std::shared_ptr<RequestListener>& listener) {
    std::vector<Submission> submissions;
    for (size_t i = 0; i < count; ++i) submissions.push_back({request(20, 30, i), listener});
    return engine.submit(std::move(submissions));
  };
  for (int round = 0; round < 20; ++round) {
    // As many as can run and wait are never too many for an engine that does nothing.
    std::vector<std::shared_ptr<Recorder>> recorders;
    std::vector<Submission> submissions;
    for (uint64_t i = 0; i < 8; ++i) {
      recorders.push_back(std::make_shared<Recorder>());
      submissions.push_back({request(20, 30, i), recorders.back()});
    }
    EXPECT_EQ(engine.submit(std::move(submissions)).size(), 8u);
    auto refused = std::make_shared<Recorder>();
    EXPECT_THROW(submit(8, refused), Overloaded);
    EXPECT_THROW(submit(9, refused), Error);
    for (const auto& recorder : recorders) recorder->wait();
    wait_until_idle(engine);
    EXPECT_EQ(refused->prompts(), 0);
    EXPECT_FALSE(refused->done());
  }
  EXPECT_EQ(engine.stats().requests, 160u);
  EXPECT_EQ(engine.stats().refused, 160u);
}

TEST_F(EngineTest, DrainingFinishesWhatThereIs) {
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  auto recorder = std::make_shared<Recorder>();
  engine.submit(request(20, 50), recorder);
  engine.drain();
  EXPECT_THROW(engine.submit(request(5, 5), std::make_shared<Recorder>()), Unavailable);
  recorder->wait();
  EXPECT_EQ(recorder->choice().tokens.size(), 50u);
  wait_until_idle(engine);
}

TEST_F(EngineTest, ClosingTellsEveryone) {
  std::vector<std::shared_ptr<Recorder>> recorders;
  {
    Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
    for (uint64_t i = 0; i < 20; ++i) {
      recorders.push_back(std::make_shared<Recorder>());
      engine.submit(request(20, 100, i), recorders.back());
    }
  }
  for (const auto& recorder : recorders) {
    ASSERT_TRUE(recorder->done());
    EXPECT_EQ(recorder->late(), 0);
  }
  EXPECT_FALSE(recorders.back()->error().empty());
}

TEST_F(EngineTest, ClosingTellsThoseWhoHaveJustCome) {
  for (uint64_t i = 0; i < 100; ++i) {
    auto recorder = std::make_shared<Recorder>();
    {
      Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
      // Its thread is up, and sleeps.
      auto first = std::make_shared<Recorder>();
      engine.submit(request(1, 1), first);
      first->wait();
      wait_until_idle(engine);
      engine.submit(request(20, 100, i), recorder);
      for (uint64_t spin = 0; spin < i * 100; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    ASSERT_TRUE(recorder->done());
    EXPECT_EQ(recorder->late(), 0);
  }
}

/// Breaks its word, in the middle of a step.
class ThrowingListener : public RequestListener {
 public:
  void on_prompt(PromptResult) override {}
  void on_delta(Delta) override { throw std::runtime_error("a listener threw"); }
  void on_error(std::string) override { ++errors; }
  std::atomic<int> errors{0};
};

TEST_F(EngineTest, AFailureTellsEveryoneAndRefusesNewcomers) {
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (uint64_t i = 0; i < 20; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    engine.submit(request(20, 100, i), recorders.back());
  }
  recorders[0]->wait_for_token();
  const auto throwing = std::make_shared<ThrowingListener>();
  const uint64_t id = engine.submit(request(5, 50), throwing);
  for (const auto& recorder : recorders) {
    recorder->wait();
    EXPECT_EQ(recorder->late(), 0);
  }
  EXPECT_NE(recorders.back()->error().find("a listener threw"), std::string::npos);
  wait_until_idle(engine);
  EXPECT_EQ(throwing->errors, 1);
  EXPECT_EQ(engine.failure(), "a listener threw");
  const EngineStats stats = engine.stats();
  EXPECT_TRUE(stats.failed);
  EXPECT_EQ(stats.free_blocks, stats.blocks);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_THROW(engine.submit(request(5, 5), std::make_shared<Recorder>()), Unavailable);
  engine.cancel(id);
  wait_until_idle(engine);
}

TEST_F(EngineTest, RequestsAreCountedAtOnce) {
  Engine engine(*tiny_.model, *tiny_.tokenizer, small_options());
  for (uint64_t i = 0; i < 100; ++i) {
    const auto recorder = std::make_shared<Recorder>();
    engine.submit(request(10, 2, i), recorder);
    do {
      ASSERT_EQ(engine.stats().requests, i + 1);
    } while (!recorder->done());
  }
}

TEST_F(EngineTest, OptionsOutOfRange) {
  const auto refused = [&](auto change) {
    EngineOptions options = small_options();
    change(options);
    Engine engine(*tiny_.model, *tiny_.tokenizer, options);
  };
  EXPECT_NO_THROW(refused([](EngineOptions&) {}));
  EXPECT_THROW(refused([](EngineOptions& o) { o.context = 1; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.context = int64_t{1} << 40; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.n_blocks = 7; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.block_size = 0; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.max_step_tokens = o.max_running; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.max_running = 0; }), Error);
  EXPECT_THROW(refused([](EngineOptions& o) { o.max_waiting = 0; }), Error);
}

}  // namespace
}  // namespace atom
