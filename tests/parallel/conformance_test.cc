#include "tests/parallel/conformance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "absl/strings/string_view.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

std::vector<ConformanceCheck> AllChecks() {
  std::vector<ConformanceCheck> checks = ControlChecks();
  for (const ConformanceCheck& check : CommunicatorChecks()) checks.push_back(check);
  return checks;
}

class ThreadConformance : public testing::TestWithParam<std::tuple<ConformanceCheck, int>> {};

TEST_P(ThreadConformance, Holds) {
  const auto& [check, size] = GetParam();
  const std::vector<absl::Status> results = RunThreadRanks(size, check.run, /*timeout_seconds=*/120);
  for (int rank = 0; rank < size; ++rank) EXPECT_TRUE(results[rank].ok()) << "rank " << rank << ": " << results[rank];
}

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadConformance,
                         testing::Combine(testing::ValuesIn(AllChecks()), testing::Values(1, 2, 3, 4, 7)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + std::to_string(std::get<1>(info.param));
                         });

TEST(ThreadWorld, TimesOut) {
  constexpr int kRanks = 3;
  const auto outer = MakeThreadWorld(kRanks);
  const auto results = RunThreadRanks(
      kRanks, [&](ControlChannel& world) { return CheckTimeouts(world, *outer[world.rank()]); }, 0.2);
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
}

TEST(ThreadWorld, FailingRankWakesTheOthers) {
  const auto results = RunThreadRanks(4, [](ControlChannel& world) -> absl::Status {
    // Rank 2 may have failed before another one is through here.
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> comm, world.SplitCommunicator(0, world.rank()));
    if (world.rank() == 2) return absl::DataLossError("torn file");
    float value = 0;
    if (world.rank() == 1) return world.Recv(0, 0).status();
    return comm->AllReduce(Tensor(&value, DType::kFloat32, {1}), ReduceOp::kSum);
  });
  EXPECT_TRUE(absl::IsDataLoss(results[2])) << results[2];
  for (int rank : {0, 1, 3}) {
    EXPECT_TRUE(absl::IsUnavailable(results[rank])) << results[rank];
    EXPECT_THAT(std::string(results[rank].message()), testing::HasSubstr("rank 2 failed: torn file"));
  }
}

TEST(ThreadWorld, AbortWakesEveryoneAndStays) {
  testing::internal::CaptureStderr();
  const auto results = RunThreadRanks(3, [](ControlChannel& world) -> absl::Status {
    if (world.rank() == 0) world.Abort(70, "out of luck");
    const absl::Status waited = world.Barrier();
    EXPECT_TRUE(absl::IsUnavailable(world.Send(0, 0, "late"))) << "a later call fails too";
    return waited;
  });
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::MatchesRegex("cairn: rank 0 .host .*.: out of luck\n"));
  for (const absl::Status& result : results) {
    EXPECT_TRUE(absl::IsUnavailable(result)) << result;
    EXPECT_THAT(std::string(result.message()), testing::HasSubstr("exit code 70: out of luck"));
  }
}

TEST(ThreadWorld, NobodyWaitsForARankThatHasReturned) {
  const auto results = RunThreadRanks(2, [](ControlChannel& world) -> absl::Status {
    if (world.rank() == 0) return world.Send(1, 4, "last words");
    const auto message = world.Recv(0, 4);
    if (!message.ok() || message->bytes != "last words") return absl::InternalError("the last message was lost");
    return world.Recv(0, 4).status();
  });
  EXPECT_TRUE(results[0].ok());
  EXPECT_TRUE(absl::IsUnavailable(results[1])) << results[1];
  EXPECT_THAT(std::string(results[1].message()), testing::HasSubstr("rank 0 has finished"));
}

TEST(ThreadWorld, SingleRankNeedsNoThread) {
  const auto world = MakeSingleRankWorld();
  EXPECT_EQ(world->size(), 1);
  for (const ConformanceCheck& check : AllChecks()) {
    const absl::Status status = check.run(*world);
    EXPECT_TRUE(status.ok()) << check.name << ": " << status;
  }
}

}  // namespace
}  // namespace cairn
