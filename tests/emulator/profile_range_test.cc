// The phases of a step as a profiler sees them: NVTX calls a tool that is linked in, as it would call Nsight Systems.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nvtx3/nvToolsExt.h>

#include <mutex>
#include <set>
#include <string>

#include "tests/engine/engine_harness.h"

namespace {

// Of all threads: the other tests of this program run several ranks, and NVTX calls from each.
std::mutex mutex;
std::set<std::string> ranges;
int depth = 0;

int Push(const char* name) {
  const std::lock_guard<std::mutex> lock(mutex);
  ranges.insert(name);
  return depth++;
}
int Pop() {
  const std::lock_guard<std::mutex> lock(mutex);
  return --depth;
}

int StartTool(NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable functions = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &functions, &size) == 0) return 0;
  *functions[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(&Push);
  *functions[NVTX_CBID_CORE_RangePop] = reinterpret_cast<NvtxFunctionPointer>(&Pop);
  return 1;
}

// NVTX looks here before its first call.
const bool linked_in = (InitializeInjectionNvtx2_fnptr = &StartTool) != nullptr;

}  // namespace

namespace cairn {
namespace {

TEST(ProfileRangeTest, EveryPhaseOfAStepIsNamed) {
  EngineOptions options = TestOptions(CheckpointDir("llama3"));
  options.device = "cuda";
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  ASSERT_TRUE(linked_in);
  auto engine = Engine::CreateLocal(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  ranges.clear();
  ASSERT_TRUE((*engine)->Add(GreedyRequest("a", {1, 2, 3}, 2)).ok());
  while ((*engine)->HasWork()) ASSERT_TRUE((*engine)->Step().ok());
  EXPECT_THAT(ranges, testing::ElementsAre("decode", "prefill", "sampling", "step"));
  EXPECT_EQ(depth, 0);
}

}  // namespace
}  // namespace cairn
