// Compressed caches on the emulated GPU: what each layer and head keeps, and the tokens, are the CPU's.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
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

void ExpectTheCpusSetsAndTokens(EngineOptions options) {
  const HarnessResult gpu = AnswerWithoutRaces(options, ThreeRequests(34));
  options.device = "cpu";
  const HarnessResult cpu = AnswerWithoutRaces(options, ThreeRequests(34));
  EXPECT_GT(gpu.stats.cache.compactions, 3);
  EXPECT_EQ(KeptSets(gpu), KeptSets(cpu));
  ExpectSameTokens(gpu, cpu);
}

class GpuCompressionTest : public testing::TestWithParam<CompressedCase> {
 protected:
  EngineOptions Options() const {
    EngineOptions options = CompressedGpuOptions("llama3", GetParam().sizes);
    options.record_evictions = true;
    options.compression.algorithm = GetParam().algorithm;
    options.compression.scope = GetParam().scope;
    return options;
  }
};

TEST_P(GpuCompressionTest, SetsAndTokensAreTheCpus) { ExpectTheCpusSetsAndTokens(Options()); }

INSTANTIATE_TEST_SUITE_P(
    Layouts, GpuCompressionTest,
    testing::Values(CompressedCase{"rkv", "head", {1, 1, 1}}, CompressedCase{"rkv", "head", {4, 1, 1}},
                    CompressedCase{"rkv-history", "head", {1, 2, 1}}, CompressedCase{"rkv-history", "head", {4, 1, 1}},
                    CompressedCase{"rkv", "layer", {2, 1, 1}}, CompressedCase{"rkv", "sequence", {2, 2, 1}},
                    CompressedCase{"snapkv", "head", {1, 2, 1}}),
    [](const auto& info) {
      return absl::StrCat(absl::StrReplaceAll(info.param.algorithm, {{"-", "_"}}), "_", info.param.scope, "_tp",
                          info.param.sizes.tp, "_pp", info.param.sizes.pp);
    });

// KV heads with budgets of their own: each is a layer of the cache.
TEST(GpuCompressionTest, HeadBudgetsGiveTheCpusSetsAndTokens) {
  for (const ParallelSizes sizes : {ParallelSizes{1, 1, 1}, ParallelSizes{2, 2, 1}}) {
    EngineOptions options = CompressedGpuOptions("llama3", sizes);
    options.record_evictions = true;
    options.compression.scope = "head";
    options.compression.schedule = "weighted";
    options.compression.head_weights = {3, 1, 0, 2, 1, 1, 0, 4};
    ExpectTheCpusSetsAndTokens(options);
  }
}

// Compaction moves slots and frees blocks between recorded steps, which go on as they are.
TEST(GpuGraphsTest, CompactionLeavesRecordingsValid) {
  EngineOptions options = CompressedGpuOptions("llama3");
  const std::vector<Request> requests = MixedRequests(/*max_tokens=*/40);
  const HarnessResult recorded = AnswerWithoutRaces(options, requests);
  EXPECT_EQ(recorded.stats.recorded_steps, 3);  // 1, 2 and 4 rows, in the warm-up
  EXPECT_GT(recorded.stats.replayed_steps, 40);
  EXPECT_GT(recorded.stats.cache.compactions, 7);
  options.enforce_eager = true;
  ExpectSameBits(AnswerWithoutRaces(options, requests), recorded);
}

TEST(GpuMemoryTest, CompressionAllocatesNothingOnceTheEngineStands) {
  for (const char* algorithm : {"rkv", "rkv-history"}) {
    EngineOptions options = CompressedGpuOptions("llama3");
    options.compression.algorithm = algorithm;
    EngineStats stats;
    ExpectNoAllocations(options, MixedRequests(/*max_tokens=*/40), &stats);
    EXPECT_GT(stats.cache.compactions, 7);
  }
}

}  // namespace
}  // namespace cairn
