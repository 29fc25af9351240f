// How ranks with emulated GPUs come to a data plane.
#include "parallel/comm/device_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "launcher/doctor_checks.h"
#include "parallel/comm/thread_channel.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/fake_nccl.h"

namespace cairn {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Every rank's choice with so many GPUs, after a sum over tp and a message along pp have been right.
std::vector<std::string> ChoicesOf(const ParallelSizes& sizes, int num_gpus, DeviceComm wanted,
                                   const std::vector<int>& versions = {}) {
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(num_gpus);
  std::vector<std::string> choices(sizes.world());
  const auto results = RunThreadRanks(
      sizes.world(),
      [&](ControlChannel& world) -> absl::Status {
        if (!versions.empty()) fake_nccl::SetVersion(versions[world.rank()]);
        CAIRN_ASSIGN_OR_RETURN(const int gpu, ChooseGpu(world));
        CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Cuda(gpu, DType::kFloat32));
        CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, sizes));
        CAIRN_ASSIGN_OR_RETURN(const CommChoice choice, ConnectGpus(groups, *context, wanted, 60));
        choices[world.rank()] = absl::StrCat("GPU ", gpu, ", ", choice.text);
        float value = static_cast<float>(groups.at.tp + 1);
        const Buffer memory = Buffer::Allocate(context->device(), sizeof(value)).value();
        const Tensor tensor(memory.data(), DType::kFloat32, {1}, context->device());
        CopyFromHost(*context, &value, tensor);
        if (sizes.tp > 1) CAIRN_RETURN_IF_ERROR(groups.tp->AllReduce(tensor, ReduceOp::kSum));
        if (groups.at.pp > 0) CAIRN_RETURN_IF_ERROR(groups.pp->Recv(tensor, groups.at.pp - 1));
        if (groups.at.pp + 1 < sizes.pp) CAIRN_RETURN_IF_ERROR(groups.pp->Send(tensor, groups.at.pp + 1));
        CAIRN_RETURN_IF_ERROR(groups.tp->Synchronize());
        CAIRN_RETURN_IF_ERROR(groups.pp->Synchronize());
        CopyToHost(*context, tensor, &value);
        EXPECT_EQ(value, static_cast<float>(sizes.tp * (sizes.tp + 1) / 2));
        // Host tensors travel as before.
        int64_t one = 1;
        CAIRN_RETURN_IF_ERROR(groups.tp->AllReduce(Tensor(&one, DType::kInt64, {1}), ReduceOp::kSum));
        EXPECT_EQ(one, sizes.tp);
        return world.Barrier();
      },
      60);
  for (int rank = 0; rank < sizes.world(); ++rank) {
    if (!results[rank].ok()) choices[rank] = std::string(results[rank].message());
  }
  cuda_emulator::SetDeviceCount(1);
  return choices;
}

TEST(DeviceGroupsTest, ARankForEachGpuSpeaksNccl) {
  const std::string version = absl::StrCat("NCCL ", NCCL_MAJOR, ".", NCCL_MINOR, ".", NCCL_PATCH);
  const std::vector<std::string> choices = ChoicesOf({.tp = 2, .pp = 2, .dp = 1}, 4, DeviceComm::kAuto);
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(choices[rank], absl::StrCat("GPU ", rank, ", ", version));
  EXPECT_EQ(fake_nccl::Count().communicators, 4 + 8);  // each rank: one for tp, two for pp
}

TEST(DeviceGroupsTest, RanksThatShareAGpuSpeakMpi) {
  for (const std::string& choice : ChoicesOf({.tp = 2, .pp = 1, .dp = 1}, 1, DeviceComm::kAuto)) {
    EXPECT_THAT(choice, AllOf(HasSubstr("GPU 0, MPI through host memory, not NCCL: ranks 0 and 1 share a GPU of host "),
                              HasSubstr("NCCL_MULTI_RANK_GPU_ENABLE=1")));
  }
  EXPECT_EQ(fake_nccl::Count().communicators, 0);
  for (const std::string& choice : ChoicesOf({.tp = 2, .pp = 1, .dp = 1}, 1, DeviceComm::kNccl)) {
    EXPECT_THAT(choice, AllOf(HasSubstr("--comm=nccl: ranks 0 and 1 share a GPU"), HasSubstr("or use --comm=mpi")));
  }
}

TEST(DeviceGroupsTest, ReplicasMayShareAGpu) {
  const std::vector<std::string> choices = ChoicesOf({.tp = 2, .pp = 1, .dp = 2}, 2, DeviceComm::kNccl);
  for (int rank = 0; rank < 4; ++rank) EXPECT_THAT(choices[rank], HasSubstr(absl::StrCat("GPU ", rank % 2, ", NCCL")));
}

TEST(DeviceGroupsTest, SharingCanBeAllowedFrom2_30_3On) {
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
  const auto choices = ChoicesOf({.tp = 2, .pp = 1, .dp = 1}, 1, DeviceComm::kNccl, {23003, 23003});
  const auto too_old = ChoicesOf({.tp = 2, .pp = 1, .dp = 1}, 1, DeviceComm::kNccl, {23002, 23002});
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
  for (const std::string& choice : choices) EXPECT_EQ(choice, "GPU 0, NCCL 2.30.3");
  for (const std::string& choice : too_old) EXPECT_THAT(choice, HasSubstr("which NCCL 2.30.2 refuses"));
}

TEST(DeviceGroupsTest, MixedVersionsAreNamed) {
  for (const std::string& choice : ChoicesOf({.tp = 1, .pp = 2, .dp = 1}, 2, DeviceComm::kNccl, {22809, 22703})) {
    EXPECT_THAT(choice, AllOf(HasSubstr("--comm=nccl: rank 0 (host "), HasSubstr("has NCCL 2.28.9, rank 1 (host "),
                              HasSubstr(") 2.27.3: put the same library on every host")));
  }
  for (const std::string& choice : ChoicesOf({.tp = 1, .pp = 2, .dp = 1}, 2, DeviceComm::kAuto, {22809, 22703})) {
    EXPECT_THAT(choice, HasSubstr("MPI through host memory, not NCCL: rank 0"));
  }
}

// Doctor's findings of every rank, merged as it prints them: "check: found".
std::vector<std::string> Doctors(const ParallelSizes& sizes, int num_gpus, const std::string& comm) {
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(num_gpus);
  EngineOptions options;
  options.comm = comm;
  std::vector<std::vector<std::string>> lines(sizes.world());
  const auto results = RunThreadRanks(
      sizes.world(),
      [&](ControlChannel& world) -> absl::Status {
        CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, sizes));
        CAIRN_ASSIGN_OR_RETURN(const std::vector<Finding> findings, CheckGpus(groups, options, 60));
        for (const Finding& finding : findings) {
          const char* verdicts[] = {"ok", "warn", "FAIL"};
          lines[world.rank()].push_back(
              absl::StrCat(verdicts[static_cast<int>(finding.verdict)], " ", finding.check, ": ", finding.detail));
        }
        return world.Barrier();
      },
      60);
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
  cuda_emulator::SetDeviceCount(1);
  return lines[0];
}

TEST(DoctorGpusTest, MeasuresEveryGroup) {
  EXPECT_THAT(Doctors({.tp = 2, .pp = 2, .dp = 1}, 4, "auto"),
              testing::ElementsAre("ok GPU: cuda:0 of 4", testing::StartsWith("ok GPU groups: NCCL "),
                                   testing::StartsWith("ok tp group, GPUs: sum over the group: "),
                                   testing::StartsWith("ok pp group, GPUs: message around the stages: ")));
}

TEST(DoctorGpusTest, SaysWhatIsSecondBestOrCannotBe) {
  EXPECT_THAT(Doctors({.tp = 2, .pp = 1, .dp = 1}, 1, "auto"),
              testing::ElementsAre("ok GPU: cuda:0 of 1",
                                   testing::StartsWith("warn GPU groups: MPI through host memory, not NCCL: ranks 0"),
                                   testing::StartsWith("ok tp group, GPUs: ")));
  EXPECT_THAT(Doctors({.tp = 2, .pp = 1, .dp = 1}, 1, "nccl"),
              testing::ElementsAre("ok GPU: cuda:0 of 1",
                                   testing::StartsWith("FAIL GPU groups: --comm=nccl: ranks 0 and 1 share a GPU")));
}

TEST(DeviceGroupsTest, MpiWhereItIsAskedForAndNothingForOneRank) {
  for (const std::string& choice : ChoicesOf({.tp = 2, .pp = 1, .dp = 1}, 2, DeviceComm::kMpi)) {
    EXPECT_THAT(choice, HasSubstr(", MPI through host memory"));
  }
  EXPECT_EQ(ChoicesOf({.tp = 1, .pp = 1, .dp = 1}, 1, DeviceComm::kAuto)[0],
            "GPU 0, none: one rank holds the whole model");
}

}  // namespace
}  // namespace cairn
