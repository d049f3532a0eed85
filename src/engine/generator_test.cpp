#include "engine/generator.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/stop_tokens.h"
#include "engine/tiny_model_testing.h"

namespace atom {
namespace {

constexpr int64_t kContext = 128;

class GeneratorTest : public ::testing::Test {
 protected:
  Generator make(KvFormat format = KvFormat::f32, int64_t chunk = 512, int64_t context = kContext) const {
    return Generator(*tiny_.model, *tiny_.tokenizer, context, format, chunk);
  }

  GenerationRequest request(size_t prompt_tokens, int64_t max_tokens, uint64_t seed = 1) const {
    GenerationRequest request;
    request.prompt = tiny_.random_tokens(prompt_tokens, seed);
    request.max_tokens = max_tokens;
    return request;
  }

  TinyModel tiny_;
};

TEST_F(GeneratorTest, GreedyIsTheArgmaxOfTheWholeSequenceEveryTime) {
  const GenerationRequest asked = request(9, 12);
  const GenerationResult result = make().generate(asked);
  ASSERT_EQ(result.tokens.size(), 12u);
  // Without a cache that outlives a step: every token from the whole sequence so far.
  std::vector<int32_t> sequence = asked.prompt;
  for (const int32_t token : result.tokens) {
    PagedKvCache cache(tiny_.model->kv_shape(), KvFormat::f32, 8);
    BlockTable table(cache);
    Runner runner(*tiny_.model, cache);
    const Chunk chunk{&table, sequence};
    const auto hidden = runner.step({&chunk, 1});
    const auto logits = tiny_.logits(hidden.row_range(hidden.rows - 1, hidden.rows));
    const float* best = std::max_element(logits.data(), logits.data() + logits.cols());
    EXPECT_EQ(token, best - logits.data());
    sequence.push_back(token);
  }
  EXPECT_EQ(result.prompt_tokens, 9);
  EXPECT_EQ(result.completion_tokens, 12);
  EXPECT_EQ(result.decode_steps, 11);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_EQ(result.text, tiny_.tokenizer->decode(result.tokens, true));
  EXPECT_GT(result.prefill_tokens_per_second(), 0);
  EXPECT_GT(result.decode_tokens_per_second(), 0);
}

TEST_F(GeneratorTest, ChunksOfThePromptDoNotMatter) {
  const GenerationRequest asked = request(50, 20);
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    const auto whole = make(format, 512).generate(asked);
    for (const int64_t chunk : {1, 7, 16, 49, 50}) {
      EXPECT_EQ(make(format, chunk).generate(asked).tokens, whole.tokens) << chunk;
    }
  }
}

TEST_F(GeneratorTest, TheSeedDecidesAndTheGeneratorDoesNot) {
  GenerationRequest asked = request(10, 30);
  asked.sampling.temperature = 1.5f;
  asked.sampling.seed = 4;
  Generator reused = make();
  const auto first = reused.generate(asked);
  EXPECT_EQ(reused.generate(asked).tokens, first.tokens);
  EXPECT_EQ(make().generate(asked).tokens, first.tokens);
  asked.sampling.seed = 5;
  EXPECT_NE(reused.generate(asked).tokens, first.tokens);
}

TEST_F(GeneratorTest, TheNextTurnReusesTheCacheAndSaysTheSame) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::int4}) {
    Generator reused = make(format);
    GenerationRequest asked = request(20, 10);
    const auto first = reused.generate(asked);
    EXPECT_EQ(first.cached_tokens, 0);
    // The next turn: prompt, answer, something new.
    asked.prompt.insert(asked.prompt.end(), first.tokens.begin(), first.tokens.end());
    const auto more = tiny_.random_tokens(5, 9);
    asked.prompt.insert(asked.prompt.end(), more.begin(), more.end());
    const auto second = reused.generate(asked);
    // The answer's last token was never computed.
    EXPECT_EQ(second.cached_tokens, 29);
    EXPECT_EQ(second.tokens, make(format).generate(asked).tokens);
    // A prompt that parts from the cache early, and one that is a prefix of it.
    asked.prompt[3] ^= 1;
    const auto third = reused.generate(asked);
    EXPECT_EQ(third.cached_tokens, 3);
    EXPECT_EQ(third.tokens, make(format).generate(asked).tokens);
    asked.prompt.resize(8);
    const auto fourth = reused.generate(asked);
    EXPECT_EQ(fourth.cached_tokens, 7);
    EXPECT_EQ(fourth.tokens, make(format).generate(asked).tokens);
  }
}

TEST_F(GeneratorTest, StopsAtTheContextsEnd) {
  GenerationRequest asked = request(30, 1000);
  Generator generator = make(KvFormat::f16, 512, 40);
  const auto result = generator.generate(asked);
  EXPECT_EQ(result.completion_tokens, 10);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  asked.max_tokens.reset();
  EXPECT_EQ(generator.generate(asked).completion_tokens, 10);
  asked.max_tokens = 0;
  EXPECT_EQ(generator.generate(asked).completion_tokens, 0);
}

TEST_F(GeneratorTest, BadPromptsAreErrorsAndTheGeneratorGoesOn) {
  Generator generator = make(KvFormat::f16, 512, 40);
  EXPECT_THROW(generator.generate(request(0, 5)), Error);
  EXPECT_THROW(generator.generate(request(40, 5)), Error);
  EXPECT_THROW(generator.generate(request(1000, 5)), Error);
  for (const int32_t bad : {-1, 288, INT32_MAX}) {
    GenerationRequest asked = request(5, 5);
    asked.prompt[2] = bad;
    EXPECT_THROW(generator.generate(asked), Error);
  }
  GenerationRequest hot = request(5, 5);
  hot.sampling.temperature = -1.0f;
  EXPECT_THROW(generator.generate(hot), UsageError);
  const GenerationRequest good = request(39, 5);
  EXPECT_EQ(generator.generate(good).tokens, make(KvFormat::f16).generate(request(39, 1)).tokens);
}

TEST_F(GeneratorTest, StopTokensEndTheTextAndAreNotInIt) {
  const GenerationRequest asked = request(9, 20);
  const auto whole = make().generate(asked);
  GenerationRequest stopped = asked;
  stopped.stop_ids = {whole.tokens[5]};
  const auto result = make().generate(stopped);
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), whole.tokens[5]);
  EXPECT_EQ(result.tokens, std::vector<int32_t>(whole.tokens.begin(), first + 1));
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(result.text, tiny_.tokenizer->decode(std::vector<int32_t>(whole.tokens.begin(), first), true));
}

TEST_F(GeneratorTest, StopStringsEndTheTextAndAreNotInIt) {
  const GenerationRequest asked = request(9, 40);
  const std::string whole = make().generate(asked).text;
  ASSERT_GT(whole.size(), 20u);
  GenerationRequest stopped = asked;
  const std::string stop = whole.substr(whole.size() / 2, 3);
  stopped.stop = {"not in there at all", stop};
  std::string streamed;
  const auto result = make().generate(stopped, [&](std::string_view piece) {
    streamed += piece;
    return true;
  });
  EXPECT_EQ(result.text, whole.substr(0, whole.find(stop)));
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(streamed, result.text);
  EXPECT_LT(result.completion_tokens, 40);
}

TEST_F(GeneratorTest, TheStreamIsTheText) {
  GenerationRequest asked = request(9, 60);
  asked.sampling.temperature = 2.0f;
  asked.stop = {"a string that would have to be held back for"};
  for (uint64_t seed = 0; seed < 5; ++seed) {
    asked.sampling.seed = seed;
    std::string streamed;
    const auto result = make().generate(asked, [&](std::string_view piece) {
      streamed += piece;
      return true;
    });
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.text, tiny_.tokenizer->decode(result.tokens, true));
  }
}

TEST_F(GeneratorTest, TheCallerMayCancel) {
  const GenerationRequest asked = request(9, 60);
  int pieces = 0;
  Generator generator = make();
  const auto result =
      generator.generate(asked, [&](std::string_view piece) { return piece.empty() || ++pieces < 3; });
  EXPECT_EQ(result.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(pieces, 3);
  EXPECT_LT(result.completion_tokens, 60);
  const auto before_prefill = generator.generate(asked, [](std::string_view) { return false; });
  EXPECT_EQ(before_prefill.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(before_prefill.completion_tokens, 0);
}

TEST_F(GeneratorTest, EndOfTextIsWhatTheCheckpointSays) {
  EXPECT_EQ(end_of_text_ids(*tiny_.checkpoint, *tiny_.tokenizer), std::vector<int32_t>{2});
}

TEST_F(GeneratorTest, SequencesOfABatchDoNotTouchEachOther) {
  PagedKvCache cache(tiny_.model->kv_shape(), KvFormat::int4, 16);
  Runner runner(*tiny_.model, cache);
  const auto one = tiny_.random_tokens(21, 1);
  const auto two = tiny_.random_tokens(13, 2);
  const auto logits_of = [&](MatrixView<const float> hidden) {
    const auto logits = tiny_.logits(hidden);
    return std::vector<float>(logits.span().begin(), logits.span().end());
  };
  const auto alone = [&](const std::vector<int32_t>& tokens) {
    BlockTable table(cache);
    const Chunk chunk{&table, tokens};
    const auto hidden = runner.step({&chunk, 1});
    return logits_of(hidden.row_range(hidden.rows - 1, hidden.rows));
  };
  const auto logits_one = alone(one);
  const auto logits_two = alone(two);

  BlockTable table_one(cache);
  BlockTable table_two(cache);
  // A prefill of the one beside the first half of the other; then decode beside prefill.
  const std::vector<Chunk> first = {{&table_two, std::span(two).first(6)},
                                    {&table_one, std::span(one).first(20)}};
  runner.step(first);
  const std::vector<Chunk> second = {{&table_one, std::span(one).subspan(20)},
                                     {&table_two, std::span(two).subspan(6)}};
  const auto hidden = runner.step(second);
  ASSERT_EQ(hidden.rows, 8);
  EXPECT_EQ(logits_of(hidden.row_range(0, 1)), logits_one);
  EXPECT_EQ(logits_of(hidden.row_range(7, 8)), logits_two);
}

TEST_F(GeneratorTest, AStepThatFailsLeavesTheTablesAlone) {
  PagedKvCache cache(tiny_.model->kv_shape(), KvFormat::f16, 2, 4);
  Runner runner(*tiny_.model, cache);
  BlockTable one(cache);
  BlockTable two(cache);
  const auto tokens = tiny_.random_tokens(6);
  const std::vector<Chunk> too_many = {{&one, std::span(tokens).first(3)}, {&two, tokens}};
  EXPECT_THROW(runner.step(too_many), Error);
  EXPECT_EQ(one.length(), 0);
  EXPECT_EQ(two.length(), 0);
  EXPECT_EQ(cache.free_blocks(), 2);
  const std::vector<int32_t> bad = {1, 2, 5000};
  const Chunk out_of_range{&one, bad};
  EXPECT_THROW(runner.step({&out_of_range, 1}), Error);
  EXPECT_EQ(one.length(), 0);
}

}  // namespace
}  // namespace atom
