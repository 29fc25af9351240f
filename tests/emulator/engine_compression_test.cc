// Compressed caches on the emulated GPU: what each layer and head keeps, and the tokens, are the CPU's.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tests/emulator/gpu_engine.h"

namespace cairn {
namespace {

struct CompressedCase {
  const char *algorithm, *scope;
  ParallelSizes sizes;
};

// (request, logical length, layer, head) -> positions kept.
using Kept = std::map<std::tuple<std::string, int64_t, int, int>, std::vector<int32_t>>;

Kept KeptSets(const HarnessResult& result) {
  Kept kept;
  for (const Eviction& e : result.evictions) kept[{e.request_id, e.logical_length, e.layer, e.kv_head}] = e.positions;
  return kept;
}

class GpuCompressionTest : public testing::TestWithParam<CompressedCase> {
 protected:
  EngineOptions Options() const {
    EngineOptions options = GpuOptions("llama3", GetParam().sizes);
    options.max_model_len = 96;
    options.record_evictions = true;
    options.compression.algorithm = GetParam().algorithm;
    options.compression.scope = GetParam().scope;
    options.compression.budget = 24;
    options.compression.buffer = 12;
    return options;
  }
  // Prompts below and above the budget, answers of several events.
  static std::vector<Request> Requests() {
    std::vector<Request> requests;
    for (const int length : {5, 20, 45}) {
      std::vector<int32_t> prompt(length);
      for (int j = 0; j < length; ++j) prompt[j] = (length * 13 + j * 17) % 290;
      requests.push_back(GreedyRequest(absl::StrCat("p", length), prompt, 34));
    }
    return requests;
  }
};

TEST_P(GpuCompressionTest, SetsAndTokensAreTheCpus) {
  EngineOptions options = Options();
  const HarnessResult gpu = Answer(options, Requests());
  options.device = "cpu";
  const HarnessResult cpu = Answer(options, Requests());
  EXPECT_GT(gpu.stats.cache.compactions, 3);
  EXPECT_EQ(KeptSets(gpu), KeptSets(cpu));
  for (const auto& [id, output] : cpu.outputs) {
    EXPECT_EQ(gpu.outputs.at(id).completions[0].token_ids, output.completions[0].token_ids) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, GpuCompressionTest,
                         testing::Values(CompressedCase{"rkv", "head", {1, 1, 1}},
                                         CompressedCase{"rkv", "head", {4, 1, 1}},
                                         CompressedCase{"rkv", "layer", {2, 1, 1}},
                                         CompressedCase{"rkv", "sequence", {2, 2, 1}},
                                         CompressedCase{"snapkv", "head", {1, 2, 1}}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.algorithm, "_", info.param.scope, "_tp", info.param.sizes.tp,
                                               "_pp", info.param.sizes.pp);
                         });

// Compaction moves slots and frees blocks between recorded steps, which go on as they are.
TEST(GpuGraphsTest, CompactionLeavesRecordingsValid) {
  EngineOptions options = GpuOptions("llama3");
  options.max_model_len = 96;
  options.compression.algorithm = "rkv";
  options.compression.budget = 24;
  options.compression.buffer = 12;
  std::vector<Request> requests = MixedRequests();
  for (Request& request : requests) request.sampling.max_tokens = 40;
  const HarnessResult recorded = Answer(options, requests);
  EXPECT_EQ(recorded.stats.recorded_steps, 3);  // 1, 2 and 4 rows, in the warm-up
  EXPECT_GT(recorded.stats.replayed_steps, 40);
  EXPECT_GT(recorded.stats.cache.compactions, 7);
  options.enforce_eager = true;
  ExpectSameBits(Answer(options, requests), recorded);
}

TEST(GpuMemoryTest, CompressionAllocatesNothingOnceTheEngineStands) {
  EngineOptions options = GpuOptions("llama3");
  options.max_model_len = 96;
  options.compression.algorithm = "rkv";
  options.compression.budget = 24;
  options.compression.buffer = 12;
  auto engine = Engine::CreateLocal(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const int64_t before = cuda_emulator::NumAllocations();
  for (Request request : MixedRequests()) {
    request.sampling.max_tokens = 40;
    ASSERT_TRUE((*engine)->Add(request).ok());
  }
  while ((*engine)->HasWork()) ASSERT_TRUE((*engine)->Step().ok());
  EXPECT_GT((*engine)->stats().cache.compactions, 7);
  EXPECT_EQ(cuda_emulator::NumAllocations(), before);
}

}  // namespace
}  // namespace cairn
