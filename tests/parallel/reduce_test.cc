#include "parallel/comm/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cairn {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kLowest = std::numeric_limits<int64_t>::min(), kHighest = std::numeric_limits<int64_t>::max();

template <typename T>
std::vector<T> Reduce(const std::vector<std::vector<T>>& ranks, ReduceOp op) {
  std::vector<const void*> sources;
  for (const std::vector<T>& rank : ranks) sources.push_back(rank.data());
  std::vector<T> out(ranks[0].size());
  ReduceInRankOrder(sources, static_cast<int64_t>(out.size()), DTypeOf<T>::value, op, out.data());
  return out;
}

TEST(Reduce, AddsFromTheFirstRankOn) {
  // 2^24 + 1 is no float: one after the other the ones are lost, together they would not be.
  EXPECT_EQ(Reduce<float>({{0x1p24f}, {1}, {1}}, ReduceOp::kSum)[0], 0x1p24f);
  EXPECT_EQ(Reduce<float>({{1}, {1}, {0x1p24f}}, ReduceOp::kSum)[0], 0x1p24f + 2);
}

TEST(Reduce, LongerThanABlock) {
  std::vector<std::vector<int64_t>> ranks(3, std::vector<int64_t>(10'001));
  for (int rank = 0; rank < 3; ++rank) {
    for (int64_t i = 0; i < 10'001; ++i) ranks[rank][i] = (rank + 1) * i;
  }
  const std::vector<int64_t> sum = Reduce(ranks, ReduceOp::kSum);
  for (int64_t i = 0; i < 10'001; ++i) ASSERT_EQ(sum[i], 6 * i);
}

TEST(Reduce, OneRankIsACopy) { EXPECT_EQ(Reduce<float>({{1, 2, 3}}, ReduceOp::kMin), (std::vector<float>{1, 2, 3})); }

TEST(Reduce, ANanWinsFromAnyRank) {
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax}) {
    for (int who = 0; who < 3; ++who) {
      std::vector<std::vector<float>> ranks = {{1}, {2}, {3}};
      ranks[who][0] = kNan;
      EXPECT_TRUE(std::isnan(Reduce(ranks, op)[0])) << who;
    }
  }
}

TEST(Reduce, MinimumAndMaximumAreSigned) {
  EXPECT_EQ(Reduce<int64_t>({{-1}, {1}, {kLowest}}, ReduceOp::kMin)[0], kLowest);
  EXPECT_EQ(Reduce<int64_t>({{-1}, {kHighest}, {1}}, ReduceOp::kMax)[0], kHighest);
  EXPECT_EQ(Reduce<int64_t>({{-3}, {-1}, {-2}}, ReduceOp::kMax)[0], -1);
}

TEST(Reduce, Int64SumsWrapInsteadOfBeingUndefined) {
  EXPECT_EQ(Reduce<int64_t>({{kHighest}, {1}}, ReduceOp::kSum)[0], kLowest);
}

}  // namespace
}  // namespace cairn
