#include "engine/scheduler.h"

#include <chrono>
#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "engine/simulation.h"

namespace atom {
namespace {

using Piece = SchedulerPlan::Piece;

SequenceState decoding(int64_t tokens, int64_t block_size = 4) {
  return {.tokens = tokens, .computed = tokens - 1, .blocks = (tokens - 1 + block_size - 1) / block_size};
}

SchedulerState small() {
  SchedulerState state;
  state.block_size = 4;
  state.free_blocks = 100;
  state.max_running = 4;
  state.max_step_tokens = 10;
  return state;
}

TEST(Scheduler, DecodesFirstThenPiecesOfPromptsOldestFirst) {
  SchedulerState state = small();
  state.running = {decoding(8), {.tokens = 30, .computed = 4, .blocks = 1}, decoding(5)};
  state.waiting = {{.tokens = 5}};
  const SchedulerPlan plan = schedule(state);
  EXPECT_EQ(plan.running, (std::vector<Piece>{{0, 1}, {1, 8}, {2, 1}}));
  EXPECT_TRUE(plan.admitted.empty()) << "the tokens of the step are used up";
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(Scheduler, AdmitsInOrderWithinTheTokensOfTheStep) {
  SchedulerState state = small();
  state.waiting = {{.tokens = 4}, {.tokens = 20}, {.tokens = 2}};
  const SchedulerPlan plan = schedule(state);
  EXPECT_EQ(plan.admitted, (std::vector<Piece>{{0, 4}, {1, 6}}));
}

TEST(Scheduler, APrefixThatIsCachedIsNotComputed) {
  SchedulerState state = small();
  state.waiting = {{.tokens = 50, .prefix_tokens = 48, .prefix_free_blocks = 12}, {.tokens = 20}};
  const SchedulerPlan plan = schedule(state);
  EXPECT_EQ(plan.admitted, (std::vector<Piece>{{0, 2}, {1, 8}}));
}

TEST(Scheduler, BlocksOfAPrefixThatSomeoneOwnsCostNothing) {
  SchedulerState state = small();
  state.free_blocks = 3;
  state.running = {decoding(50)};
  // 13 blocks, 12 of them there already.
  state.waiting = {{.tokens = 50, .prefix_tokens = 48, .prefix_free_blocks = 0}};
  EXPECT_EQ(schedule(state).admitted.size(), 1u);
  state.waiting[0].prefix_free_blocks = 12;
  EXPECT_EQ(schedule(state).admitted.size(), 0u);
}

TEST(Scheduler, OneThatDoesNotFitLetsNobodyPass) {
  SchedulerState state = small();
  state.running = {decoding(8)};
  state.free_blocks = 4;
  state.waiting = {{.tokens = 40}, {.tokens = 1}};
  EXPECT_TRUE(schedule(state).admitted.empty());
  state.waiting.erase(state.waiting.begin());
  EXPECT_EQ(schedule(state).admitted.size(), 1u);
}

TEST(Scheduler, RunningPromptsKeepTheBlocksThatTheyWillTake) {
  SchedulerState state = small();
  state.free_blocks = 12;
  // It will take 11 blocks more.
  state.running = {{.tokens = 47, .computed = 4, .blocks = 1}};
  state.max_step_tokens = 20;
  state.waiting = {{.tokens = 4}};
  EXPECT_TRUE(schedule(state).admitted.empty());
  state.free_blocks = 13;
  EXPECT_EQ(schedule(state).admitted.size(), 0u) << "a piece of the prompt uses all tokens of the step";
  state.running[0] = {.tokens = 5, .computed = 4, .blocks = 1};
  EXPECT_EQ(schedule(state).admitted.size(), 1u);
}

TEST(Scheduler, ChoicesCountAsSequences) {
  SchedulerState state = small();
  state.running = {decoding(8)};
  state.waiting = {{.tokens = 2, .width = 4}};
  EXPECT_TRUE(schedule(state).admitted.empty());
  state.waiting[0].width = 3;
  EXPECT_EQ(schedule(state).admitted.size(), 1u);
}

TEST(Scheduler, PreemptsTheYoungest) {
  SchedulerState state = small();
  state.free_blocks = 0;
  // All of them want a new block.
  state.running = {decoding(9), decoding(9), decoding(9)};
  state.waiting = {{.tokens = 1}};
  const SchedulerPlan plan = schedule(state);
  EXPECT_EQ(plan.preempted, (std::vector<int64_t>{2}));
  EXPECT_EQ(plan.running, (std::vector<Piece>{{0, 1}, {1, 1}}));
  EXPECT_TRUE(plan.admitted.empty());
}

TEST(Scheduler, PreemptedTokensGoToOthers) {
  SchedulerState state = small();
  state.free_blocks = 1;
  state.max_running = 3;
  // The old prompt needs three blocks for its piece; the young one's token is taken back.
  state.running = {{.tokens = 40, .computed = 4, .blocks = 1}, decoding(9), decoding(9)};
  const SchedulerPlan plan = schedule(state);
  EXPECT_EQ(plan.preempted, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(plan.running, (std::vector<Piece>{{0, 9}}));
}

TEST(Scheduler, ASharedTailCostsABlock) {
  SequenceState sequence{.tokens = 7, .computed = 6, .blocks = 2};
  EXPECT_EQ(blocks_needed(sequence, 1, 4), 0);
  sequence.shared_tail = true;
  EXPECT_EQ(blocks_needed(sequence, 1, 4), 1);
  EXPECT_EQ(blocks_needed(sequence, 3, 4), 2);
  EXPECT_EQ(blocks_needed(sequence, 0, 4), 0);
}

TEST(Scheduler, IsAFunctionOfTheState) {
  SchedulerState state = small();
  state.running = {decoding(9), {.tokens = 40, .computed = 4, .blocks = 1}};
  state.waiting = {{.tokens = 3}};
  const SchedulerState copy = state;
  EXPECT_EQ(schedule(state), schedule(copy));
  EXPECT_EQ(state, copy);
}

std::vector<SimulatedRequest> random_traffic(uint64_t seed, int count, int64_t most) {
  Random random(seed);
  std::vector<SimulatedRequest> traffic;
  double clock = 0;
  for (int i = 0; i < count; ++i) {
    clock += random.uniform() * 0.02;
    traffic.push_back({clock, 1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(most))),
                       1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(most)))});
  }
  return traffic;
}

TEST(Simulation, EveryRequestFinishesHoweverSmallTheCache) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto traffic = random_traffic(seed, 60, 60);
    SimulationOptions options;
    options.block_size = 1 + static_cast<int64_t>(seed % 9);
    // The longest alone needs all of it.
    options.n_blocks = (120 + options.block_size - 1) / options.block_size + static_cast<int64_t>(seed);
    options.max_running = 1 + static_cast<int64_t>(seed);
    options.max_step_tokens = options.max_running + 1 + static_cast<int64_t>(seed % 5) * 20;
    const SimulationResult result = simulate(traffic, options);
    for (size_t i = 0; i < traffic.size(); ++i) {
      EXPECT_EQ(result.requests[i].tokens, traffic[i].output_tokens);
      EXPECT_GT(result.requests[i].first_token, traffic[i].arrival);
      EXPECT_GE(result.requests[i].finish, result.requests[i].first_token);
    }
  }
}

TEST(Simulation, EqualRequestsFinishInOrderOfArrival) {
  std::vector<SimulatedRequest> traffic(40, {0, 50, 50});
  SimulationOptions options;
  options.n_blocks = 20;  // two of them and a half
  options.max_running = 8;
  options.max_step_tokens = 64;
  const SimulationResult result = simulate(traffic, options);
  EXPECT_GT(result.preemptions, 0);
  for (size_t i = 1; i < traffic.size(); ++i) {
    EXPECT_GE(result.requests[i].finish, result.requests[i - 1].finish);
  }
}

TEST(Simulation, ALongPromptDoesNotHoldBackTokensOfOthers) {
  std::vector<SimulatedRequest> traffic = {{0, 10, 400}, {0.1, 1000, 10}};
  SimulationOptions options;
  options.n_blocks = 200;
  options.max_running = 8;
  options.max_step_tokens = 64;
  const SimulationResult result = simulate(traffic, options);
  // The steps that it shares with the prompt are at most 64 tokens each.
  const double longest = options.step_seconds + 64 * options.token_seconds;
  EXPECT_LE(result.requests[0].finish, 400 * longest);
  EXPECT_LT(result.requests[1].first_token, result.requests[0].finish);
}

/// Pairs of prompt and output tokens; recorded ones where they are to be found.
std::vector<SimulatedRequest> recorded_traffic(size_t count) {
  const char* folder = std::getenv("ATOM_TEST_DATA");
  std::ifstream file(folder != nullptr ? std::string(folder) + "/sharegpt_lengths.json" : std::string());
  std::vector<SimulatedRequest> traffic;
  if (!file) return traffic;
  const auto pairs = nlohmann::json::parse(file);
  for (size_t i = 0; i < count; ++i) {
    const auto& pair = pairs[i % pairs.size()];
    traffic.push_back({0, pair[0].get<int64_t>(), pair[1].get<int64_t>()});
  }
  return traffic;
}

TEST(Simulation, TenThousandRecordedRequestsAThousandAtATime) {
  const auto traffic = recorded_traffic(10'000);
  if (traffic.empty()) GTEST_SKIP() << "ATOM_TEST_DATA has no sharegpt_lengths.json";
  SimulationOptions options;
  options.max_running = 1000;
  options.max_step_tokens = 2048;
  for (const int64_t n_blocks : {40'000, 12'000}) {
    options.n_blocks = n_blocks;
    const auto begin = std::chrono::steady_clock::now();
    const SimulationResult result = simulate(traffic, options);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    int64_t tokens = 0;
    for (const auto& times : result.requests) tokens += times.tokens;
    std::printf("%lld blocks: %.3f s for %lld steps, %lld tokens, at most %lld running, %lld preemptions\n",
                static_cast<long long>(n_blocks), seconds, static_cast<long long>(result.steps),
                static_cast<long long>(tokens), static_cast<long long>(result.most_running),
                static_cast<long long>(result.preemptions));
    RecordProperty("seconds", std::to_string(seconds));
    if (n_blocks == 40'000) {
      EXPECT_EQ(result.most_running, 1000);
    }
    // What is computed again because of preemptions stays small.
    EXPECT_LT(static_cast<double>(result.computed_tokens), 1.3 * static_cast<double>(tokens + 10'000 * 110));
  }
}

}  // namespace
}  // namespace atom
