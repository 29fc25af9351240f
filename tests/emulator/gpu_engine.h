// Whole engines on the emulated GPU, for tests.
#ifndef CAIRN_TESTS_EMULATOR_GPU_ENGINE_H_
#define CAIRN_TESTS_EMULATOR_GPU_ENGINE_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/emulator/emulator.h"
#include "tests/engine/engine_harness.h"

namespace cairn {

inline EngineOptions GpuOptions(const std::string& family, ParallelSizes sizes = {}) {
  EngineOptions options = TestOptions(CheckpointDir(family), sizes);
  options.device = "cuda";
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 160;
  return options;
}

// R-KV with several compactions in the answers of the requests below.
inline EngineOptions CompressedGpuOptions(const std::string& family, ParallelSizes sizes = {}) {
  EngineOptions options = GpuOptions(family, sizes);
  options.max_model_len = 96;
  options.compression.algorithm = "rkv";
  options.compression.budget = 24;
  options.compression.buffer = 12;
  return options;
}

// Nothing fails, and no kernel's threads race.
inline HarnessResult AnswerWithoutRaces(const EngineOptions& options, const std::vector<Request>& requests) {
  HarnessResult result = Answer(options, requests);
  EXPECT_EQ(cuda_emulator::NumRaces(), 0);
  return result;
}

inline std::vector<int32_t> MadeUpPrompt(int length, int first, int step) {
  std::vector<int32_t> prompt(static_cast<size_t>(length));
  for (int j = 0; j < length; ++j) prompt[j] = (first + j * step) % 290;
  return prompt;
}

// Of prompts below and above the compressed options' budget, greedy.
inline std::vector<Request> ThreeRequests(int32_t max_tokens) {
  std::vector<Request> requests;
  for (const int length : {5, 20, 45}) {
    requests.push_back(GreedyRequest(absl::StrCat("p", length), MadeUpPrompt(length, length * 13, 17), max_tokens));
  }
  return requests;
}

inline std::vector<Request> MixedRequests(int32_t max_tokens = 0) {  // 0: of 6 to 19
  std::vector<Request> requests;
  for (int i = 0; i < 7; ++i) {
    requests.push_back(GreedyRequest(absl::StrCat("r", i), MadeUpPrompt(1 + i * 9 % 40, i * 31, 7),
                                     max_tokens > 0 ? max_tokens : 6 + i * 5 % 14));
    requests.back().sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    requests.back().sampling.logprobs = 1;
  }
  return requests;
}

inline void ExpectSameTokens(const HarnessResult& a, const HarnessResult& b) {
  ASSERT_EQ(a.outputs.size(), b.outputs.size());
  for (const auto& [id, output] : a.outputs) {
    EXPECT_EQ(output.completions[0].token_ids, b.outputs.at(id).completions[0].token_ids) << id;
  }
}

// The first token's four best logits, within `tolerance` of the CPU's, with one rank and with two.
inline void ExpectNearTheCpu(EngineOptions options, std::vector<Request> requests, double tolerance) {
  for (Request& request : requests) request.sampling.logprobs = 4;
  for (const int tp : {1, 2}) {
    options.parallel.tp = tp;
    options.device = "cpu";
    const HarnessResult cpu = AnswerWithoutRaces(options, requests);
    options.device = "cuda";
    const HarnessResult gpu = AnswerWithoutRaces(options, requests);
    for (const auto& [id, output] : cpu.outputs) {
      const TokenLogprob &wanted = output.completions[0].logprobs[0],
                         &found = gpu.outputs.at(id).completions[0].logprobs[0];
      for (size_t k = 0; k < 4; ++k) {
        EXPECT_NEAR(found.top[k].second, wanted.top[k].second, tolerance) << id << " tp " << tp;
      }
    }
  }
}

// An engine that stands allocates no device memory while it answers.
inline void ExpectNoAllocations(const EngineOptions& options, const std::vector<Request>& requests,
                                EngineStats* stats = nullptr) {
  auto engine = Engine::CreateLocal(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const int64_t before = cuda_emulator::NumAllocations();
  for (const Request& request : requests) ASSERT_TRUE((*engine)->Add(request).ok());
  while ((*engine)->HasWork()) ASSERT_TRUE((*engine)->Step().ok());
  EXPECT_EQ(cuda_emulator::NumAllocations(), before);
  if (stats != nullptr) *stats = (*engine)->stats();
}

inline void ExpectSameBits(const HarnessResult& a, const HarnessResult& b) {
  ExpectSameTokens(a, b);
  for (const auto& [id, output] : a.outputs) {
    const Completion &one = output.completions[0], &other = b.outputs.at(id).completions[0];
    for (size_t t = 0; t < one.logprobs.size(); ++t) {
      EXPECT_EQ(one.logprobs[t].logprob, other.logprobs[t].logprob) << id << " token " << t;
    }
  }
}

}  // namespace cairn

#endif  // CAIRN_TESTS_EMULATOR_GPU_ENGINE_H_
