// The whole engine over the NCCL communicator and the fake NCCL, a GPU for each rank: the CPU's tokens, from recorded
// steps whose sums over the ranks lie in NCCL's windows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/emulator/fake_nccl.h"
#include "tests/emulator/gpu_engine.h"

namespace cairn {
namespace {

struct Layout {
  ParallelSizes sizes;
  bool compressed;
};

class NcclEngineTest : public testing::TestWithParam<Layout> {};

TEST_P(NcclEngineTest, TokensAreTheCpus) {
  const auto& [sizes, compressed] = GetParam();
  EngineOptions options = compressed ? CompressedGpuOptions("llama3", sizes) : GpuOptions("llama3", sizes);
  options.comm = "nccl";
  const std::vector<Request> requests = ThreeRequests(24);
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(sizes.world());
  const HarnessResult gpu = Answer(options, requests);
  cuda_emulator::SetDeviceCount(1);
  const fake_nccl::Counts counts = fake_nccl::Count();
  EXPECT_EQ(counts.communicators, sizes.world() * ((sizes.tp > 1 ? 1 : 0) + (sizes.pp > 1 ? 2 : 0)));
  EXPECT_EQ(counts.aborted, 0);
  EXPECT_EQ(counts.symmetric_reductions > 0, sizes.tp > 1);
  EXPECT_GT(gpu.stats.recorded_steps, 0);
  options.device = "cpu";
  options.comm = "auto";
  const HarnessResult cpu = Answer(options, requests);
  ExpectSameTokens(gpu, cpu);
  EXPECT_EQ(gpu.stats.cache.compactions, cpu.stats.cache.compactions);
}

INSTANTIATE_TEST_SUITE_P(Layouts, NcclEngineTest,
                         testing::Values(Layout{{2, 1, 1}, false}, Layout{{1, 2, 1}, false}, Layout{{2, 2, 1}, false},
                                         Layout{{1, 3, 1}, false}, Layout{{2, 2, 1}, true}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.sizes.tp, "x", info.param.sizes.pp,
                                               info.param.compressed ? "Compressed" : "Full");
                         });

}  // namespace
}  // namespace cairn
