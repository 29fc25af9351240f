// The engine against Hugging Face transformers: greedy tokens exactly and logits within a tolerance, for every family,
// over every way of sharding, with prompts whole and in chunks, alone and in a full batch.
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

struct Layout {
  int tp, pp, dp;
  const char* partition;
};

std::vector<Request> RequestsOf(const nlohmann::json& expected) {
  std::vector<Request> requests;
  for (const auto& c : expected["cases"]) {
    Request request = GreedyRequest(absl::StrCat("case", requests.size()), c["prompt_ids"].get<std::vector<int32_t>>(),
                                    static_cast<int32_t>(c["greedy_ids"].size()));
    request.sampling.logprobs = 8;
    requests.push_back(std::move(request));
  }
  return requests;
}

void ExpectGreedy(const nlohmann::json& expected, const HarnessResult& result, const std::string& label) {
  for (size_t i = 0; i < expected["cases"].size(); ++i) {
    const auto& output = result.outputs.at(absl::StrCat("case", i));
    EXPECT_EQ(output.completions[0].token_ids, expected["cases"][i]["greedy_ids"].get<std::vector<int32_t>>())
        << label << ", prompt of " << expected["cases"][i]["prompt_ids"].size();
    EXPECT_EQ(output.completions[0].finish_reason, FinishReason::kLength);
    for (size_t t = 0; t < output.completions[0].logprobs.size(); ++t) {
      EXPECT_NEAR(output.completions[0].logprobs[t].logprob, expected["cases"][i]["greedy_logprobs"][t].get<double>(),
                  2e-4)
          << label << " token " << t;
    }
  }
}

// Differences of log-probabilities are differences of logits. Two float32 implementations differ by the rounding of
// sums of up to a few hundred terms in each of ~4 layers: relative 1e-5 of logits of size 10.
void ExpectTopLogits(const nlohmann::json& expected, const HarnessResult& result, const std::string& label) {
  for (size_t i = 0; i < expected["cases"].size(); ++i) {
    const auto& c = expected["cases"][i];
    if (!c.contains("top8_ids")) continue;
    const TokenLogprob& first = result.outputs.at(absl::StrCat("case", i)).completions[0].logprobs.at(0);
    ASSERT_EQ(first.top.size(), 8u);
    for (int k = 0; k < 8; ++k) {
      EXPECT_EQ(first.top[k].first, c["top8_ids"][k].get<int32_t>()) << label;
      const double want = c["top8_logits"][k].get<double>() - c["top8_logits"][0].get<double>();
      EXPECT_NEAR(first.top[k].second - first.top[0].second, want, 2e-4) << label;
    }
  }
}

class ReferenceTest : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceTest, EveryShardingGivesTheReferenceTokens) {
  const nlohmann::json expected = ReadJson(CheckpointDir(GetParam()) + "/expected.json");
  const auto layouts = {Layout{1, 1, 1, "auto"}, Layout{2, 1, 1, "auto"}, Layout{1, 2, 1, "auto"},
                        Layout{2, 2, 1, "auto"}, Layout{4, 1, 1, "auto"}, Layout{1, 3, 1, "2,1,1"},
                        Layout{1, 1, 2, "auto"}};
  for (const Layout& layout : layouts) {
    for (const int chunk : {512, 16}) {  // 16: every longer prompt comes in chunks
      EngineOptions options = TestOptions(CheckpointDir(GetParam()), {layout.tp, layout.pp, layout.dp});
      options.pp_layer_partition = layout.partition;
      options.max_num_seqs = 8;
      options.max_num_batched_tokens = chunk;
      const std::string label = GetParam() + " tp " + std::to_string(layout.tp) + " pp " + std::to_string(layout.pp) +
                                " dp " + std::to_string(layout.dp) + " tokens per step " + std::to_string(chunk);
      const absl::StatusOr<HarnessResult> result = RunEngine(options, RequestsOf(expected));
      ASSERT_TRUE(result.ok()) << label << ": " << result.status();
      ExpectGreedy(expected, *result, label);
      ExpectTopLogits(expected, *result, label);
    }
  }
}

TEST_P(ReferenceTest, AloneAndInAFullBatch) {
  const nlohmann::json expected = ReadJson(CheckpointDir(GetParam()) + "/expected.json");
  for (const Request& request : RequestsOf(expected)) {  // alone
    const absl::StatusOr<HarnessResult> result = RunEngine(TestOptions(CheckpointDir(GetParam())), {request});
    ASSERT_TRUE(result.ok()) << result.status();
    const size_t i = std::stoul(request.id.substr(4));
    EXPECT_EQ(result->outputs.at(request.id).completions[0].token_ids,
              expected["cases"][i]["greedy_ids"].get<std::vector<int32_t>>());
  }
  std::vector<Request> requests = RequestsOf(expected);  // among 40 neighbours that sample at random
  for (int i = 0; i < 40; ++i) {
    Request neighbour = GreedyRequest(absl::StrCat("n", i), {5 + i, 17, 40 + i % 7}, 10 + i % 23);
    neighbour.sampling.temperature = 1;
    requests.insert(requests.begin() + i % requests.size(), neighbour);
  }
  const absl::StatusOr<HarnessResult> result = RunEngine(TestOptions(CheckpointDir(GetParam())), requests);
  ASSERT_TRUE(result.ok()) << result.status();
  ExpectGreedy(expected, *result, GetParam() + " in a full batch");
}

INSTANTIATE_TEST_SUITE_P(Families, ReferenceTest, testing::Values("llama2", "llama3", "mistral", "qwen2", "qwen3"),
                         [](const auto& info) { return info.param; });

// The real small models of ../shared, 64 greedy tokens each.
TEST(SharedGoldens, RealAndSyntheticModelsTokenForToken) {
  const std::optional<std::string> shared = SharedDir();
  if (!shared) GTEST_SKIP() << "no ../shared (or CAIRN_SHARED_DIR): the real small models are not checked";
  for (const char* name :
       {"stories260k", "babyllama105", "stories3m", "synthetic-llama3", "synthetic-qwen2", "synthetic-qwen3"}) {
    const nlohmann::json golden = ReadJson(*shared + "/golden/" + name + ".json");
    for (const ParallelSizes sizes : {ParallelSizes{1, 1, 1}, ParallelSizes{2, 1, 1}, ParallelSizes{1, 2, 1}}) {
      std::vector<Request> requests;
      for (const auto& c : golden["cases"]) {
        requests.push_back(GreedyRequest(std::to_string(requests.size()), c["prompt_ids"].get<std::vector<int32_t>>(),
                                         static_cast<int32_t>(c["greedy_ids"].size())));
      }
      const absl::StatusOr<HarnessResult> result = RunEngine(TestOptions(*shared + "/models/" + name, sizes), requests);
      ASSERT_TRUE(result.ok()) << name << ": " << result.status();
      for (size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(result->outputs.at(std::to_string(i)).completions[0].token_ids,
                  golden["cases"][i]["greedy_ids"].get<std::vector<int32_t>>())
            << name << " tp " << sizes.tp << " pp " << sizes.pp << " case " << i;
      }
    }
  }
}

}  // namespace
}  // namespace cairn
