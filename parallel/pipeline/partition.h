// Layers to pipeline stages: `auto` minimises the slowest stage (with memory as a limit), or the list that the user
// gave.
#ifndef CAIRN_PARALLEL_PIPELINE_PARTITION_H_
#define CAIRN_PARALLEL_PIPELINE_PARTITION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/shard/shard.h"

namespace cairn {

// What a stage costs, in any one unit (bytes read per step is a good one: decode is bound by it). Layers differ under a
// pyramid of KV budgets.
struct PartitionCosts {
  std::vector<double> layer;  // [layers] weights + cache of each
  double embedding = 0;       // added to the first stage
  double head = 0;            // final norm and LM head, added to the last
};

// The contiguous partition into `stages` with the smallest maximum cost; among equals the one whose cost vector, sorted
// in descending order, is smallest. Every stage has at least one layer: INVALID_ARGUMENT names the numbers when stages
// > layers.
absl::StatusOr<std::vector<Range>> PartitionLayers(const PartitionCosts& costs, int stages);

// "auto" or a list like "18,21,21,20" (layers per stage); a list that does not have `stages` positive entries that sum
// to the layers is INVALID_ARGUMENT with the numbers and a list that would work.
absl::StatusOr<std::vector<Range>> ParsePartition(const std::string& text, const PartitionCosts& costs, int stages);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_PIPELINE_PARTITION_H_
