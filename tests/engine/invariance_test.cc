// The same answer whatever the neighbours, the order, the chunks and the number of stages: bit for bit.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

// Log-probabilities are compared with ==: equal bits in every layer, or they would differ.
void ExpectSameBits(const RequestOutput& a, const RequestOutput& b, const std::string& label) {
  ASSERT_EQ(a.completions.size(), b.completions.size());
  for (size_t n = 0; n < a.completions.size(); ++n) {
    ASSERT_EQ(a.completions[n].token_ids, b.completions[n].token_ids) << label << " " << a.id;
    for (size_t i = 0; i < a.completions[n].logprobs.size(); ++i) {
      ASSERT_EQ(a.completions[n].logprobs[i].logprob, b.completions[n].logprobs[i].logprob) << label << " " << a.id;
      ASSERT_EQ(a.completions[n].logprobs[i].top, b.completions[n].logprobs[i].top) << label << " " << a.id;
    }
  }
}

std::vector<Request> RandomRequests(std::mt19937& rng, int count) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t> prompt(1 + rng() % 60);
    for (int32_t& id : prompt) id = static_cast<int32_t>(rng() % 290);
    Request request = GreedyRequest(absl::StrCat("r", i), prompt, 1 + static_cast<int32_t>(rng() % 24));
    request.sampling.logprobs = 3;
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 0.9f;
    request.sampling.top_p = i % 2 == 0 ? 0.9f : 1.0f;
    request.sampling.top_k = i % 4 == 1 ? 20 : -1;
    request.sampling.repetition_penalty = i % 5 == 2 ? 1.2f : 1.0f;
    request.sampling.n = i % 7 == 3 ? 3 : 1;
    requests.push_back(std::move(request));
  }
  return requests;
}

class InvarianceTest : public testing::TestWithParam<const char*> {};

TEST_P(InvarianceTest, RandomBatchPlacements) {
  std::mt19937 rng(7);
  std::vector<Request> requests = RandomRequests(rng, 24);
  EngineOptions options = TestOptions(CheckpointDir("qwen3"));
  options.dtype = GetParam();
  options.max_num_seqs = 1;  // each alone: the reference
  options.max_num_batched_tokens = 512;
  const absl::StatusOr<HarnessResult> alone = RunEngine(options, requests);
  ASSERT_TRUE(alone.ok()) << alone.status();
  for (int round = 0; round < 12; ++round) {
    std::shuffle(requests.begin(), requests.end(), rng);
    options.max_num_seqs = 2 + static_cast<int32_t>(rng() % 30);
    options.max_num_batched_tokens = options.max_num_seqs + static_cast<int32_t>(rng() % 64);
    options.block_size = 1 << (rng() % 6);
    options.threads = 1 + round % 3;
    options.parallel.pp = 1 + round % 3;
    const std::string label = "seqs " + std::to_string(options.max_num_seqs) + " tokens " +
                              std::to_string(options.max_num_batched_tokens) + " block " +
                              std::to_string(options.block_size) + " pp " + std::to_string(options.parallel.pp);
    const absl::StatusOr<HarnessResult> result = RunEngine(options, requests);
    ASSERT_TRUE(result.ok()) << label << ": " << result.status();
    ASSERT_EQ(result->outputs.size(), requests.size());
    for (const auto& [id, output] : result->outputs) ExpectSameBits(alone->outputs.at(id), output, label);
  }
}

TEST_P(InvarianceTest, PreemptionByRecomputeChangesNothing) {
  std::mt19937 rng(11);
  const std::vector<Request> requests = RandomRequests(rng, 30);
  EngineOptions options = TestOptions(CheckpointDir("llama3"));
  options.dtype = GetParam();
  options.block_size = 4;
  options.max_model_len = 96;
  const absl::StatusOr<HarnessResult> roomy = RunEngine(options, requests);
  ASSERT_TRUE(roomy.ok()) << roomy.status();
  EXPECT_EQ(roomy->stats.preemptions, 0);
  for (const int pp : {1, 2}) {
    EngineOptions tight = options;
    tight.parallel.pp = pp;
    // Room for two sequences of the longest kind: K and V planes of 2 heads x 16 and positions, a block 4 slots.
    const int64_t block_bytes = 2 * 2 * 16 * 4 * (std::string(GetParam()) == "float32" ? 4 : 2) + 64;
    tight.kv_cache_memory_bytes = block_bytes * (2 * 96 / 4) * 4 / pp;
    const absl::StatusOr<HarnessResult> result = RunEngine(tight, requests);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->stats.preemptions, 0);
    EXPECT_LE(result->stats.kv_blocks_peak, result->stats.kv_blocks_total);
    for (const auto& [id, output] : result->outputs) ExpectSameBits(roomy->outputs.at(id), output, "preempted");
  }
}

INSTANTIATE_TEST_SUITE_P(Types, InvarianceTest, testing::Values("float32", "bfloat16"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace cairn
