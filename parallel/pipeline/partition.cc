#include "parallel/pipeline/partition.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Costs of the stages that a partial partition has, largest first, and where its last stage begins.
struct Best {
  std::vector<double> costs;
  int begin = -1;  // none yet
};

std::vector<double> WithCost(const std::vector<double>& sorted, double cost) {
  std::vector<double> costs = sorted;
  costs.insert(std::upper_bound(costs.begin(), costs.end(), cost, std::greater<double>()), cost);
  return costs;
}

// [begin][end]: cost of the stage [begin, end) without embedding and head. Added up in the same order wherever the
// stage lies, so that equal layers give equal stages to the last bit and ties are ties.
std::vector<std::vector<double>> StageCosts(const std::vector<double>& layer) {
  const int num_layers = static_cast<int>(layer.size());
  std::vector<std::vector<double>> cost(num_layers, std::vector<double>(num_layers + 1, 0));
  for (int begin = 0; begin < num_layers; ++begin) {
    for (int end = begin; end < num_layers; ++end) cost[begin][end + 1] = cost[begin][end] + layer[end];
  }
  return cost;
}

std::string LayersPerStage(const std::vector<Range>& stages) {
  return absl::StrJoin(stages, ",", [](std::string* out, const Range& stage) { absl::StrAppend(out, stage.size()); });
}

}  // namespace

// best[s][e] is the partition of the first e layers into s stages whose sorted costs are smallest. It extends one of
// best[s - 1][*]: putting one more cost into two sorted vectors of one length keeps their lexicographic order.
absl::StatusOr<std::vector<Range>> PartitionLayers(const PartitionCosts& costs, int stages) {
  const int num_layers = static_cast<int>(costs.layer.size());
  if (stages < 1 || stages > num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("pipeline-parallel-size ", stages, " does not fit ", num_layers,
                                                   " layers: every stage needs at least one layer; sizes from 1 to ",
                                                   num_layers, " work"));
  }
  const std::vector<std::vector<double>> stage_costs = StageCosts(costs.layer);
  std::vector<std::vector<Best>> best(stages + 1, std::vector<Best>(num_layers + 1));
  best[0][0].begin = 0;
  for (int stage = 1; stage <= stages; ++stage) {
    for (int end = stage; end <= num_layers; ++end) {
      Best& smallest = best[stage][end];
      for (int begin = stage - 1; begin < end; ++begin) {
        if (best[stage - 1][begin].begin < 0) continue;
        double cost = stage_costs[begin][end];
        if (begin == 0) cost += costs.embedding;
        if (end == num_layers) cost += costs.head;
        std::vector<double> sorted = WithCost(best[stage - 1][begin].costs, cost);
        if (smallest.begin < 0 || sorted < smallest.costs) smallest = {std::move(sorted), begin};
      }
    }
  }
  std::vector<Range> result(stages);
  for (int stage = stages, end = num_layers; stage > 0; --stage) {
    const int begin = best[stage][end].begin;
    result[stage - 1] = {begin, end};
    end = begin;
  }
  return result;
}

absl::StatusOr<std::vector<Range>> ParsePartition(const std::string& text, const PartitionCosts& costs, int stages) {
  CAIRN_ASSIGN_OR_RETURN(const std::vector<Range> automatic, PartitionLayers(costs, stages));
  if (text == "auto") return automatic;
  const int64_t num_layers = static_cast<int64_t>(costs.layer.size());
  const auto refuse = [&](const std::string& reason) {
    return absl::InvalidArgumentError(absl::StrCat("pp-layer-partition \"", text, "\" ", reason, ": give auto, or ",
                                                   stages, " positive numbers of layers that sum to ", num_layers,
                                                   ", for example ", LayersPerStage(automatic)));
  };
  const std::vector<std::string> entries = absl::StrSplit(text, ',');
  if (static_cast<int>(entries.size()) != stages) {
    return refuse(absl::StrCat("has ", entries.size(), entries.size() == 1 ? " entry" : " entries", " for ", stages,
                               stages == 1 ? " stage" : " stages"));
  }
  std::vector<Range> result;
  int64_t begin = 0;
  for (const std::string& entry : entries) {
    int64_t layers = 0;
    if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(entry), &layers) || layers < 1 || layers > num_layers) {
      return refuse(absl::StrCat("has the entry \"", entry, "\""));
    }
    result.push_back({begin, begin + layers});
    begin += layers;
  }
  if (begin != num_layers) return refuse(absl::StrCat("sums to ", begin, " layers, the model has ", num_layers));
  return result;
}

}  // namespace cairn
