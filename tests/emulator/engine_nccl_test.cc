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
  const HarnessResult gpu = AnswerWithoutRaces(options, requests);
  cuda_emulator::SetDeviceCount(1);
  const fake_nccl::Counts counts = fake_nccl::Count();
  EXPECT_EQ(counts.communicators, sizes.world() * ((sizes.tp > 1 ? 1 : 0) + (sizes.pp > 1 ? 2 : 0)));
  EXPECT_EQ(counts.aborted, 0);
  EXPECT_EQ(counts.symmetric_reductions > 0, sizes.tp > 1);
  EXPECT_GT(gpu.stats.recorded_steps, 0);
  options.device = "cpu";
  options.comm = "auto";
  const HarnessResult cpu = AnswerWithoutRaces(options, requests);
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

// Stages that send have their messages' copies from the start; with scope sequence they send scores too.
TEST(NcclEngineMemory, NothingIsAllocatedAfterTheWarmUp) {
  constexpr int kStages = 3;
  for (const char* scope : {"none", "head", "sequence"}) {
    SCOPED_TRACE(scope);
    const bool compressed = scope != std::string("none");
    EngineOptions options =
        compressed ? CompressedGpuOptions("llama3", {1, kStages, 1}) : GpuOptions("llama3", {1, kStages, 1});
    options.comm = "nccl";
    if (compressed) options.compression.scope = scope;
    fake_nccl::Reset();
    cuda_emulator::SetDeviceCount(kStages);
    int64_t before = 0, after = 0;
    const auto statuses = RunThreadRanks(kStages, [&](ControlChannel& world) -> absl::Status {
      CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
      CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
      CAIRN_RETURN_IF_ERROR(world.Barrier());
      if (world.rank() == 0) before = cuda_emulator::NumAllocations();
      CAIRN_RETURN_IF_ERROR(world.Barrier());
      if (!engine->is_leader()) return engine->Serve();
      for (const Request& request : MixedRequests(compressed ? 40 : 0)) CAIRN_RETURN_IF_ERROR(engine->Add(request));
      while (engine->HasWork()) CAIRN_RETURN_IF_ERROR(engine->Step().status());
      after = cuda_emulator::NumAllocations();
      EXPECT_EQ(engine->stats().cache.compactions > 0, compressed);
      return engine->Shutdown();
    });
    cuda_emulator::SetDeviceCount(1);
    for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(after, before);
  }
}

}  // namespace
}  // namespace cairn
