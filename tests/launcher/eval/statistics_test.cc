// Intervals and tests against published values.
#include "launcher/eval/statistics.h"

#include <vector>

#include "gtest/gtest.h"

namespace cairn {
namespace {

// Newcombe, Statistics in Medicine 17 (1998), table I, method 3: four proportions that he works out.
TEST(StatisticsTest, WilsonAgainstNewcombe) {
  const struct {
    int right, total;
    double low, high;
  } cases[] = {{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0.0, 0.1611}, {1, 29, 0.0061, 0.1718}};
  for (const auto& c : cases) {
    const Interval interval = WilsonInterval(c.right, c.total);
    EXPECT_NEAR(interval.low, c.low, 5e-5) << c.right;
    EXPECT_NEAR(interval.high, c.high, 5e-5) << c.right;
  }
  EXPECT_EQ(WilsonInterval(20, 20).high, 1);
  EXPECT_NEAR(WilsonInterval(20, 20).low, 1 - 0.1611, 5e-5);
  EXPECT_EQ(WilsonInterval(0, 0).low, 0);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

// Two-sided binomial probabilities by hand: 2 (1 + 5 + ...) / 2^n.
TEST(StatisticsTest, McNemarExactly) {
  EXPECT_DOUBLE_EQ(McNemarExact(0, 0), 1);
  EXPECT_NEAR(McNemarExact(5, 0), 2.0 / 32, 1e-12);
  EXPECT_NEAR(McNemarExact(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(McNemarExact(1, 5), 2.0 * (1 + 6) / 64, 1e-12);
  EXPECT_NEAR(McNemarExact(3, 3), 1, 1e-12);
  EXPECT_NEAR(McNemarExact(2, 10), 2.0 * (1 + 12 + 66) / 4096, 1e-12);
  EXPECT_LT(McNemarExact(500, 300), 1e-9);
}

TEST(StatisticsTest, BootstrapIsSeededAndOfTheRightWidth) {
  std::vector<PairedShares> questions;
  for (int i = 0; i < 400; ++i) questions.push_back({i % 10 == 0 ? 0.0 : 1.0, i % 4 == 0 ? 0.0 : 1.0});
  const BootstrapIntervals once = Bootstrap(questions), again = Bootstrap(questions);
  EXPECT_EQ(once.accuracy.low, again.accuracy.low);
  // 0.75 +- 1.96 sqrt(0.75 * 0.25 / 400)
  EXPECT_NEAR(once.accuracy.low, 0.75 - 0.0424, 0.006);
  EXPECT_NEAR(once.accuracy.high, 0.75 + 0.0424, 0.006);
  ASSERT_TRUE(once.share.has_value());
  EXPECT_LT(once.share->low, 0.75 / 0.9);
  EXPECT_GT(once.share->high, 0.75 / 0.9);
  EXPECT_FALSE(Bootstrap(std::vector<PairedShares>(5)).share.has_value());
  EXPECT_FALSE(Bootstrap({}).share.has_value());
}

// The same answers in both: the share is exactly one, whatever is drawn.
TEST(StatisticsTest, PairedSharesShareTheirLuck) {
  std::vector<PairedShares> questions;
  for (int i = 0; i < 50; ++i) questions.push_back({i % 2 * 1.0, i % 2 * 1.0});
  const BootstrapIntervals intervals = Bootstrap(questions);
  ASSERT_TRUE(intervals.share.has_value());
  EXPECT_EQ(intervals.share->low, 1);
  EXPECT_EQ(intervals.share->high, 1);
}

}  // namespace
}  // namespace cairn
