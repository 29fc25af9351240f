// Losses of compactions, gathered, stored, added up and drawn.
#include "launcher/eval/shadow.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Eviction Loss(const std::string& request, int64_t length, int layer, int head, float mass, float error) {
  return {.request_id = request,
          .logical_length = length,
          .layer = layer,
          .kv_head = head,
          .mass_lost = mass,
          .output_error = error};
}

ShadowStatistics Small() {
  ShadowStatistics statistics(2, 2);
  for (const char* request : {"a", "b"}) {
    for (const int64_t length : {100, 132}) {
      for (int head = 0; head < 2; ++head) {
        statistics.Add(Loss(request, length, 0, head, length == 100 ? 0.1f : 0.3f, 0.5f));
      }
    }
  }
  return statistics;
}

TEST(ShadowTest, ByHeadAndByCompaction) {
  const nlohmann::ordered_json json = Small().ToJson();
  EXPECT_EQ(json["compactions"][0][1], 4);
  EXPECT_NEAR(json["mass_lost"][0][0].get<double>(), 0.2, 1e-6);
  EXPECT_NEAR(json["output_error"][0][0].get<double>(), 0.5, 1e-6);
  EXPECT_TRUE(json["mass_lost"][1][0].is_null());  // never compacted
  ASSERT_EQ(json["by_compaction"].size(), 2u);
  EXPECT_NEAR(json["by_compaction"][0]["mass_lost"].get<double>(), 0.1, 1e-6);
  EXPECT_NEAR(json["by_compaction"][1]["mass_lost"].get<double>(), 0.3, 1e-6);
  EXPECT_EQ(json["by_compaction"][1]["tokens"], 132);
  EXPECT_EQ(json["by_compaction"][1]["count"], 4);
}

TEST(ShadowTest, StoredAndAddedUp) {
  const ShadowStatistics small = Small();
  absl::StatusOr<ShadowStatistics> read = ShadowStatistics::FromJson(nlohmann::json(small.ToJson()));
  ASSERT_TRUE(read.ok()) << read.status();
  ShadowStatistics all;
  EXPECT_TRUE(all.empty());
  all.Merge(*read);
  all.Merge(small);
  all.Merge(ShadowStatistics());
  EXPECT_EQ(all.at(0, 0).count, 8);
  EXPECT_NEAR(all.at(0, 0).mean_mass_lost(), 0.2, 1e-6);
  EXPECT_EQ(all.ToJson()["by_compaction"][0]["count"], 8);
  EXPECT_FALSE(ShadowStatistics::FromJson({{"layers", 2}}).ok());
}

TEST(ShadowTest, TheMaps) {
  const std::string svg = ShadowPlot("m<&", {{"rkv-b51", Small()}, {"snapkv-b51", Small()}});
  EXPECT_THAT(svg, HasSubstr("m&lt;&amp;"));
  EXPECT_THAT(svg, HasSubstr("layer 0, KV head 1: 20.00 %, 4 compactions"));
  EXPECT_THAT(svg, HasSubstr("layer 1, KV head 0: never compacted"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("href")));
}

}  // namespace
}  // namespace cairn
