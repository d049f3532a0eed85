#include <gtest/gtest.h>

#include "engine/generator.h"
#include "engine/tiny_model_testing.h"
#include "kernels/cuda.h"

// Sampling on a GPU, in exact mode, where logits are the CPU's: so the tokens have to be, too.

namespace atom {
namespace {

TEST(GpuGenerator, DrawsTheTokensOfTheCpu) {
  if (!first_cuda_device()) GTEST_SKIP() << "no GPU that this build has kernels for";
  const CudaHandle gpu = open_cuda(*first_cuda_device());
  const TinyModel tiny({.head_dim = 64});
  DeviceContext cuda = tiny.device;
  cuda.cuda = gpu.device.get();
  cuda.memory = gpu.memory;
  const auto model = Model::load(*tiny.checkpoint, cuda);
  Generator on_cpu(*tiny.model, *tiny.tokenizer, 128, KvFormat::int4);
  Generator on_gpu(*model, *tiny.tokenizer, 128, KvFormat::int4);
  const SamplingParams settings[] = {
      {},
      {.temperature = 1.5f},
      {.temperature = 0.8f, .top_p = 0.9f},
      {.temperature = 2.0f, .top_k = 20, .top_p = 0.8f, .min_p = 0.05f},
      {.temperature = 1.0f, .top_p = 0.95f, .repetition_penalty = 1.3f},
      {.repetition_penalty = 1.1f,
       .presence_penalty = 0.5f,
       .frequency_penalty = 0.7f,
       .logit_bias = {{3, 2.0f}, {17, -100.0f}}},
  };
  for (SamplingParams sampling : settings) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      GenerationRequest request;
      request.prompt = tiny.random_tokens(9, seed);
      request.max_tokens = 40;
      request.sampling = sampling;
      request.sampling.seed = seed;
      const GenerationResult found = on_gpu.generate(request);
      EXPECT_EQ(found.tokens, on_cpu.generate(request).tokens) << sampling.temperature << ", seed " << seed;
      EXPECT_EQ(found.completion_tokens, 40);
      EXPECT_GT(found.prefill_seconds, 0);
    }
  }
}

}  // namespace
}  // namespace atom
