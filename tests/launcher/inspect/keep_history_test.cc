// Ranges of positions, and the history that compaction records make.
#include "launcher/inspect/keep_history.h"

#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Eviction Kept(int64_t length, int32_t layer, int32_t head, std::vector<int32_t> positions) {
  return {
      .request_id = "a", .logical_length = length, .layer = layer, .kv_head = head, .positions = std::move(positions)};
}

TEST(RangesOfTest, FewestRangesThatHoldExactlyThePositions) {
  EXPECT_THAT(RangesOf({}), IsEmpty());
  EXPECT_THAT(RangesOf({7}), ElementsAre(PositionRange{7, 8}));
  EXPECT_THAT(RangesOf({0, 1, 2}), ElementsAre(PositionRange{0, 3}));
  EXPECT_THAT(RangesOf({0, 2, 3, 9}), ElementsAre(PositionRange{0, 1}, PositionRange{2, 4}, PositionRange{9, 10}));
}

TEST(RangesOfTest, RandomSetsComeBack) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> positions;
    for (int32_t position = 0; position < 60; ++position) {
      if (random() % 3 > 0) positions.push_back(position);
    }
    std::vector<int32_t> back;
    for (const PositionRange& range : RangesOf(positions)) {
      EXPECT_TRUE(back.empty() || back.back() + 1 < range.begin) << "two ranges where one would do";
      for (int32_t position = range.begin; position < range.end; ++position) back.push_back(position);
    }
    EXPECT_EQ(back, positions);
  }
}

TEST(KeepHistoryTest, FollowsEachHeadThroughEvents) {
  KeepHistory history(2, 2);
  ASSERT_TRUE(history.Add(Kept(4, 0, 0, {0, 3})).ok());
  ASSERT_TRUE(history.Add(Kept(4, 0, 1, {1, 3})).ok());
  // Layer 1 is below its budget at the first event.
  ASSERT_TRUE(history.Add(Kept(6, 1, 1, {4, 5})).ok());  // ranks report in any order
  ASSERT_TRUE(history.Add(Kept(6, 0, 0, {3, 5})).ok());
  ASSERT_TRUE(history.Add(Kept(6, 1, 0, {0, 5})).ok());
  ASSERT_TRUE(history.Add(Kept(6, 0, 1, {4, 5})).ok());
  EXPECT_EQ(history.num_events(), 2);
  EXPECT_EQ(history.logical_length(1), 4);
  EXPECT_EQ(history.logical_length(2), 6);
  EXPECT_THAT(history.KeptPositions(0, 0, 0, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(history.KeptPositions(0, 0, 1, 4), ElementsAre(0, 3));
  EXPECT_THAT(history.KeptPositions(0, 0, 1, 6), ElementsAre(0, 3, 4, 5));
  EXPECT_THAT(history.KeptPositions(0, 0, 2, 8), ElementsAre(3, 5, 6, 7));
  EXPECT_THAT(history.KeptPositions(1, 0, 1, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(history.KeptPositions(1, 1, 2, 6), ElementsAre(4, 5));
  EXPECT_EQ(history.evicted_at(0, 0, 1), 1);
  EXPECT_EQ(history.evicted_at(0, 0, 0), 2);
  EXPECT_EQ(history.evicted_at(0, 0, 3), 0);
  EXPECT_EQ(history.evicted_at(0, 0, 100), 0);
}

TEST(KeepHistoryTest, RefusesWhatCannotBe) {
  const auto refusal = [](const Eviction& bad) {
    KeepHistory history(1, 2);
    EXPECT_TRUE(history.Add(Kept(4, 0, 0, {0, 3})).ok());
    EXPECT_TRUE(history.Add(Kept(6, 0, 0, {3, 5})).ok());
    return std::string(history.Add(bad).message());
  };
  EXPECT_THAT(refusal(Kept(8, 1, 0, {7})), HasSubstr("no such head"));
  EXPECT_THAT(refusal(Kept(8, 0, 2, {7})), HasSubstr("no such head"));
  EXPECT_THAT(refusal(Kept(4, 0, 1, {3})), HasSubstr("later one was recorded"));
  EXPECT_THAT(refusal(Kept(6, 0, 0, {3, 5})), HasSubstr("twice"));
  EXPECT_THAT(refusal(Kept(8, 0, 0, {0, 7})), HasSubstr("had let go of"));
  EXPECT_THAT(refusal(Kept(8, 0, 0, {5, 8})), HasSubstr("not yet fed"));
  EXPECT_THAT(refusal(Kept(8, 0, 0, {7, 5})), HasSubstr("do not ascend"));
  EXPECT_EQ(refusal(Kept(8, 0, 0, {5, 7})), "");
}

}  // namespace
}  // namespace cairn
