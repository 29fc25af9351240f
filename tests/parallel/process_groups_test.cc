#include "parallel/comm/process_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

// What groups do once made is in the conformance suite (Groups).

TEST(ProcessGroups, TensorRanksAreAdjacentThenStagesThenReplicas) {
  const ParallelSizes sizes = {.tp = 2, .pp = 3, .dp = 2};
  int rank = 0;
  for (int dp = 0; dp < 2; ++dp) {
    for (int pp = 0; pp < 3; ++pp) {
      for (int tp = 0; tp < 2; ++tp, ++rank) {
        const RankCoordinates at = CoordinatesOf(rank, sizes);
        EXPECT_EQ(at.tp, tp);
        EXPECT_EQ(at.pp, pp);
        EXPECT_EQ(at.dp, dp);
        EXPECT_EQ(WorldRankOf(at, sizes), rank);
      }
    }
  }
}

std::string ErrorOf(int world_size, const ParallelSizes& sizes) {
  const auto world = MakeThreadWorld(world_size);
  const absl::Status status = MakeProcessGroups(world[0].get(), sizes).status();  // refused before any message
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(ProcessGroups, RefusesAWorldOfAnotherSize) {
  EXPECT_EQ(ErrorOf(3, {.tp = 2, .pp = 2, .dp = 1}),
            "world size 3 does not match tensor-parallel-size 2 x pipeline-parallel-size 2 x data-parallel-size 1 = 4: "
            "start it with mpirun -np 4, or choose sizes whose product is 3");
  EXPECT_THAT(ErrorOf(4, {.tp = 1, .pp = 1, .dp = 1}), testing::HasSubstr("mpirun -np 1"));
  EXPECT_THAT(ErrorOf(1, {.tp = 0, .pp = 1, .dp = 1}), testing::HasSubstr("tensor-parallel-size 0"));
  // 2^16 x 2^16 is 0 in 32 bits.
  EXPECT_THAT(ErrorOf(1, {.tp = 65536, .pp = 65536, .dp = 1}), testing::HasSubstr("world size 1 does not match"));
}

}  // namespace
}  // namespace cairn
