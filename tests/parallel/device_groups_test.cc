#include "parallel/comm/device_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cairn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Lists = std::vector<std::vector<std::string>>;

TEST(AssignGpusTest, RanksThatSeeTheSameTakeOneEach) {
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b", "c"}, {"a", "b", "c"}, {"a", "b", "c"}}), ElementsAre(0, 1, 2));
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b", "c", "d"}, {"a", "b", "c", "d"}}), ElementsAre(0, 1));
}

// srun --gpus-per-task: each rank's only GPU is its number 0.
TEST(AssignGpusTest, RanksThatSeeTheirOwnTakeIt) {
  EXPECT_THAT(*AssignGpus(Lists{{"c"}, {"a"}, {"b"}}), ElementsAre(0, 0, 0));
}

// Rank 0 gives up its first choice where rank 1 has no other.
TEST(AssignGpusTest, NobodySharesWhereThatCanBe) {
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b"}, {"a"}}), ElementsAre(1, 0));
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b"}, {"b", "c"}, {"b"}}), ElementsAre(0, 1, 0));
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b"}, {"a", "c"}, {"a"}}), ElementsAre(1, 1, 0));
}

TEST(AssignGpusTest, MoreRanksThanGpusShareEvenly) {
  EXPECT_THAT(*AssignGpus(Lists{{"a"}, {"a"}}), ElementsAre(0, 0));
  EXPECT_THAT(*AssignGpus(Lists(4, {"a", "b"})), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(*AssignGpus(Lists{{"a", "b"}, {"a"}, {"a", "b"}, {"b"}}), ElementsAre(1, 0, 0, 0));
}

TEST(AssignGpusTest, ARankWithoutGpuIsNamed) {
  const auto none = AssignGpus(Lists{{"a"}, {}});
  ASSERT_TRUE(absl::IsUnavailable(none.status()));
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("local rank 1 sees no GPU"));
}

TEST(DeviceCommTest, FlagNamesWhatIsAllowed) {
  EXPECT_EQ(*ParseDeviceComm("auto"), DeviceComm::kAuto);
  EXPECT_EQ(*ParseDeviceComm("mpi"), DeviceComm::kMpi);
  EXPECT_EQ(*ParseDeviceComm("nccl"), DeviceComm::kNccl);
  EXPECT_THAT(std::string(ParseDeviceComm("tcp").status().message()),
              HasSubstr("--comm=tcp: allowed is auto, mpi or nccl"));
}

TEST(DeviceCommTest, ALibraryThatIsMissingIsNamed) {
  const std::vector<RankGpu> ranks = {{"h1", "a", 22809, "", false}, {"h2", "b", 0, "cannot load libnccl.so.2", false}};
  const ParallelSizes sizes = {.tp = 2, .pp = 1, .dp = 1};
  const auto asked = ChooseComm(ranks, sizes, DeviceComm::kNccl);
  EXPECT_TRUE(absl::IsFailedPrecondition(asked.status())) << asked.status();
  EXPECT_THAT(std::string(asked.status().message()), HasSubstr("rank 1 (host h2): cannot load libnccl.so.2"));
  EXPECT_EQ(ChooseComm(ranks, sizes, DeviceComm::kAuto)->comm, DeviceComm::kMpi);
}

}  // namespace
}  // namespace cairn
