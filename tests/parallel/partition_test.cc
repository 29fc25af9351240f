#include "parallel/pipeline/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace cairn {
namespace {

using testing::HasSubstr;

std::vector<double> SortedCosts(const PartitionCosts& costs, const std::vector<Range>& stages) {
  std::vector<double> sorted;
  for (const Range& stage : stages) {
    double cost = 0;
    for (int64_t layer = stage.begin; layer < stage.end; ++layer) cost += costs.layer[layer];
    if (stage.begin == 0) cost += costs.embedding;
    if (stage.end == static_cast<int64_t>(costs.layer.size())) cost += costs.head;
    sorted.push_back(cost);
  }
  std::sort(sorted.begin(), sorted.end(), std::greater<double>());
  return sorted;
}

// The smallest sorted costs over every way to cut.
void TryAll(const PartitionCosts& costs, int stages, std::vector<Range>& cuts, std::vector<double>& best) {
  const int64_t layers = static_cast<int64_t>(costs.layer.size());
  const int64_t begin = cuts.empty() ? 0 : cuts.back().end;
  if (static_cast<int>(cuts.size()) + 1 == stages) {
    cuts.push_back({begin, layers});
    const std::vector<double> sorted = SortedCosts(costs, cuts);
    if (best.empty() || sorted < best) best = sorted;
    cuts.pop_back();
    return;
  }
  const int64_t stages_after = stages - static_cast<int64_t>(cuts.size()) - 1;
  for (int64_t end = begin + 1; end <= layers - stages_after; ++end) {
    cuts.push_back({begin, end});
    TryAll(costs, stages, cuts, best);
    cuts.pop_back();
  }
}

void ExpectContiguous(const std::vector<Range>& stages, int64_t layers) {
  int64_t next = 0;
  for (const Range& stage : stages) {
    EXPECT_EQ(stage.begin, next);
    EXPECT_GE(stage.size(), 1);
    next = stage.end;
  }
  EXPECT_EQ(next, layers);
}

TEST(PartitionLayers, IsTheBestOfAll) {
  std::mt19937 rng(1);
  for (int round = 0; round < 300; ++round) {
    PartitionCosts costs;
    const int layers = 1 + static_cast<int>(rng() % 9), stages = 1 + static_cast<int>(rng() % layers);
    // Small integers: many ties, and sums without rounding.
    for (int i = 0; i < layers; ++i) costs.layer.push_back(1 + rng() % 4);
    costs.embedding = rng() % 5;
    costs.head = rng() % 9;
    const auto found = PartitionLayers(costs, stages);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(static_cast<int>(found->size()), stages);
    ExpectContiguous(*found, layers);
    std::vector<Range> cuts;
    std::vector<double> best;
    TryAll(costs, stages, cuts, best);
    EXPECT_EQ(SortedCosts(costs, *found), best);
  }
}

TEST(PartitionLayers, RealShapes) {
  // Llama-3-70B in bytes of weights: the head costs as much as one and a fifth layers.
  PartitionCosts costs;
  costs.layer.assign(80, 1.71e9);
  costs.head = 2.1e9;
  const auto stages = PartitionLayers(costs, 4);
  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_LT(stages->back().size(), 20) << "the last stage has the head";
  ExpectContiguous(*stages, 80);
  costs.head = 0;
  const auto even = PartitionLayers(costs, 8);
  for (const Range& stage : *even) EXPECT_EQ(stage.size(), 10);
}

TEST(PartitionLayers, RefusesMoreStagesThanLayers) {
  PartitionCosts costs;
  costs.layer.assign(3, 1);
  const absl::Status status = PartitionLayers(costs, 4).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(HasSubstr("pipeline-parallel-size 4"), HasSubstr("3 layers")));
  EXPECT_TRUE(absl::IsInvalidArgument(PartitionLayers(costs, 0).status()));
}

TEST(ParsePartition, AutoAndLists) {
  PartitionCosts costs;
  costs.layer.assign(80, 1);
  EXPECT_EQ(*ParsePartition("auto", costs, 4), *PartitionLayers(costs, 4));
  EXPECT_EQ(*ParsePartition("18,21, 21,20", costs, 4), (std::vector<Range>{{0, 18}, {18, 39}, {39, 60}, {60, 80}}));
  EXPECT_EQ(*ParsePartition("80", costs, 1), (std::vector<Range>{{0, 80}}));
}

TEST(ParsePartition, RefusesWithAListThatWorks) {
  PartitionCosts costs;
  costs.layer.assign(80, 1);
  const auto message = [&](const std::string& text) {
    const absl::Status status = ParsePartition(text, costs, 4).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("sum to 80, for example 20,20,20,20")) << text;
    return std::string(status.message());
  };
  EXPECT_THAT(message("20,20,20"), HasSubstr("\"20,20,20\" has 3 entries for 4 stages"));
  EXPECT_THAT(message("20,20,20,19"), HasSubstr("sums to 79 layers, the model has 80"));
  EXPECT_THAT(message("20,20,40,0"), HasSubstr("has the entry \"0\""));
  EXPECT_THAT(message("20,20,50,-10"), HasSubstr("has the entry \"-10\""));
  EXPECT_THAT(message("20,20,x,20"), HasSubstr("has the entry \"x\""));
  EXPECT_THAT(message("99999999999999999999,1,1,1"), HasSubstr("has the entry \"99999999999999999999\""));
  EXPECT_THAT(message(""), HasSubstr("has 1 entry for 4 stages"));
}

}  // namespace
}  // namespace cairn
