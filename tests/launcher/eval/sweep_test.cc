// Lists to settings: every combination once, what cannot be left out with a note, what is wrong named.
#include "launcher/eval/sweep.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Lists = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> Keys(const Sweep& sweep) {
  std::vector<std::string> keys;
  for (const Setting& setting : sweep.settings) keys.push_back(SettingKey(setting.config));
  return keys;
}

TEST(SweepTest, EveryCombinationAfterTheFullCache) {
  const absl::StatusOr<Sweep> sweep =
      MakeSweep({{"kv_compression", "rkv, snapkv"}, {"kv_buffer", "64"}, {"kv_budget", "128,256"}}, {}, true);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_THAT(Keys(*sweep),
              ElementsAre("full", "rkv-b128-f64-w8-uniform-head-l0.1", "rkv-b256-f64-w8-uniform-head-l0.1",
                          "snapkv-b128-f64-w8-uniform-head", "snapkv-b256-f64-w8-uniform-head"));
}

TEST(SweepTest, WhatAMethodDoesNotReadMakesNoSettingOfItsOwn) {
  const absl::StatusOr<Sweep> sweep = MakeSweep({{"kv_compression", "none,rkv,snapkv,streamingllm"},
                                                 {"kv_schedule", "uniform,pyramid"},
                                                 {"kv_beta", "5,20"},
                                                 {"kv_scope", "head,layer"},
                                                 {"kv_lambda", "0.1,0.3"}},
                                                {}, true);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  // full; rkv: 3 shapes x 2 scopes x 2 lambdas; snapkv: 3 x 2; streamingllm: 3
  EXPECT_THAT(sweep->settings, SizeIs(1 + 12 + 6 + 3));
}

TEST(SweepTest, AllLayersOneSetAndAPyramidAreLeftOut) {
  const absl::StatusOr<Sweep> sweep = MakeSweep(
      {{"kv_compression", "rkv"}, {"kv_schedule", "uniform,pyramid"}, {"kv_scope", "head,sequence"}}, {}, false);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_THAT(sweep->settings, SizeIs(3));
  EXPECT_THAT(sweep->notes, ElementsAre(HasSubstr("--kv-scope=sequence")));
  const absl::StatusOr<Sweep> nothing =
      MakeSweep({{"kv_compression", "rkv"}, {"kv_schedule", "pyramid"}, {"kv_scope", "sequence"}}, {}, false);
  EXPECT_THAT(std::string(nothing.status().message()), HasSubstr("pyramid"));
}

TEST(SweepTest, PoolingAndWeightedBudgets) {
  CompressionConfig base;
  base.layer_weights = {1, 2};
  const absl::StatusOr<Sweep> sweep = MakeSweep(
      {{"kv_compression", "rkv,gkv"}, {"kv_kernel", "1,7"}, {"kv_schedule", "uniform,weighted"}}, base, false);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_THAT(Keys(*sweep),
              ElementsAre("rkv-b1024-f128-w8-uniform-head-l0.1-k1", "rkv-b1024-f128-w8-weighted-head-l0.1-k1",
                          "rkv-b1024-f128-w8-uniform-head-l0.1", "rkv-b1024-f128-w8-weighted-head-l0.1",
                          "gkv-b1024-f128-w8-uniform-head", "gkv-b1024-f128-w8-weighted-head"));
  std::vector<CompressionConfig> all;
  for (const Setting& setting : sweep->settings) all.push_back(setting.config);
  EXPECT_EQ(SeriesLabel(all[1], all), "rkv weighted kernel 1");
  EXPECT_EQ(SeriesLabel(all[4], all), "gkv");
}

TEST(SweepTest, HistoryReadsWhatRkvReads) {
  const absl::StatusOr<Sweep> sweep =
      MakeSweep({{"kv_compression", "rkv-history"}, {"kv_lambda", "0.1,0.2"}, {"kv_kernel", "1,7"}}, {}, false);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_EQ(Keys(*sweep).size(), 4u);
}

// streamingllm keeps the last tokens whatever share is promised to them.
TEST(SweepTest, RecentTokens) {
  const absl::StatusOr<Sweep> sweep =
      MakeSweep({{"kv_compression", "rkv,streamingllm"}, {"kv_recent_ratio", "0,0.1"}}, {}, false);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_THAT(Keys(*sweep),
              ElementsAre("rkv-b1024-f128-w8-uniform-head-l0.1", "rkv-b1024-f128-w8-uniform-head-l0.1-r0.1",
                          "streamingllm-b1024-f128-w8-uniform-head"));
  std::vector<CompressionConfig> all;
  for (const Setting& setting : sweep->settings) all.push_back(setting.config);
  EXPECT_EQ(SeriesLabel(all[1], all), "rkv recent 0.1");
}

TEST(SweepTest, BadValuesNameTheFlag) {
  const struct {
    Lists lists;
    const char* expected;
  } cases[] = {
      {{{"kv_budget", "128,,256"}}, "--kv-budget=128,,256: '': expected a whole number of slots, or a percentage"},
      {{{"kv_budget", "128,12x"}}, "--kv-budget=128,12x: '12x'"},
      {{{"kv_budget", "0%"}}, "--kv-budget=0%: '0%': expected a percentage above 0 %, at most 100 %"},
      {{{"kv_budget", "150%"}}, "at most 100 %"},
      {{{"kv_budget", "nan%"}}, "at most 100 %"},
      {{{"kv_buffer", "1.5"}}, "--kv-buffer=1.5: '1.5': expected a whole number"},
      {{{"kv_lambda", "0.1,x"}}, "--kv-lambda=0.1,x: 'x': expected a number"},
      {{{"kv_lambda", "2"}, {"kv_compression", "rkv"}}, "--kv-lambda=2: must be between 0 and 1"},
      {{{"kv_compression", "rkv"}, {"kv_kernel", "2"}}, "--kv-kernel=2: must be odd"},
      {{{"kv_compression", "rkv"}, {"kv_schedule", "weighted"}}, "--kv-schedule=weighted: needs --kv-layer-weights"},
      {{{"kv_compression", "rvk"}}, "--kv-compression=rvk: must be one of none, "},
      {{{"kv_compression", "rkv"}, {"kv_budget", "8"}}, "--kv-budget=8: must be more than --kv-window=8"},
      {{{"kv_compression", "rkv"}, {"kv_scope", ""}}, "--kv-scope=: '': expected a name"},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<Sweep> sweep = MakeSweep(c.lists, {}, true);
    EXPECT_EQ(ExitCodeOf(sweep.status()), kExitUsage) << c.expected;
    EXPECT_THAT(std::string(sweep.status().message()), HasSubstr(c.expected));
  }
}

TEST(SweepTest, PercentagesAreOfTheFullCachesMeanLength) {
  const Lists lists = {{"kv_compression", "rkv"}, {"kv_budget", "10%,25%"}};
  const absl::StatusOr<Sweep> sweep = MakeSweep(lists, {}, true);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  ASSERT_THAT(sweep->settings, SizeIs(3));
  EXPECT_EQ(Resolve(sweep->settings[1], 506.0)->budget, 51);
  EXPECT_EQ(Resolve(sweep->settings[2], 506.0)->budget, 127);
  EXPECT_THAT(std::string(Resolve(sweep->settings[1], 50.0).status().message()), HasSubstr("--kv-budget=10%"));
  EXPECT_THAT(std::string(MakeSweep(lists, {}, false).status().message()), HasSubstr("--no-full-cache"));
}

TEST(SweepTest, LinesOfAPlotAreNamedByWhatDiffers) {
  CompressionConfig a, b, c, full;
  a.algorithm = b.algorithm = c.algorithm = "rkv";
  a.buffer = 16;
  b.buffer = 64;
  b.scope = "layer";
  c.schedule = "pyramid";
  c.buffer = 16;
  const std::vector<CompressionConfig> all = {full, a, b, c};
  EXPECT_EQ(SeriesLabel(full, all), "full cache");
  EXPECT_EQ(SeriesLabel(a, all), "rkv buffer 16");
  EXPECT_EQ(SeriesLabel(b, all), "rkv per layer buffer 64");
  EXPECT_EQ(SeriesLabel(c, all), "rkv pyramid buffer 16");
  EXPECT_EQ(SeriesLabel(a, {full, a}), "rkv");
}

}  // namespace
}  // namespace cairn
