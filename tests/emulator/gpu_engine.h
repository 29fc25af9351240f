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

inline HarnessResult Answer(const EngineOptions& options, const std::vector<Request>& requests) {
  absl::StatusOr<HarnessResult> result = RunEngine(options, requests);
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(cuda_emulator::NumRaces(), 0);
  return result.ok() ? *std::move(result) : HarnessResult();
}

inline std::vector<Request> MixedRequests() {
  std::vector<Request> requests;
  for (int i = 0; i < 7; ++i) {
    std::vector<int32_t> prompt(1 + i * 9 % 40);
    for (size_t j = 0; j < prompt.size(); ++j) prompt[j] = static_cast<int32_t>((i * 31 + j * 7) % 290);
    requests.push_back(GreedyRequest(absl::StrCat("r", i), prompt, 6 + i * 5 % 14));
    requests.back().sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    requests.back().sampling.logprobs = 1;
  }
  return requests;
}

inline void ExpectSameBits(const HarnessResult& a, const HarnessResult& b) {
  ASSERT_EQ(a.outputs.size(), b.outputs.size());
  for (const auto& [id, output] : a.outputs) {
    const Completion &one = output.completions[0], &other = b.outputs.at(id).completions[0];
    EXPECT_EQ(one.token_ids, other.token_ids) << id;
    for (size_t t = 0; t < one.logprobs.size(); ++t) {
      EXPECT_EQ(one.logprobs[t].logprob, other.logprobs[t].logprob) << id << " token " << t;
    }
  }
}

}  // namespace cairn

#endif  // CAIRN_TESTS_EMULATOR_GPU_ENGINE_H_
