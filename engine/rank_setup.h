// Start-up of one rank: which layers it has, their weights, how much cache fits, and what all ranks know of each other
// afterwards. Each phase that a rank can fail alone ends with an agreement, so that nobody waits for the gone.
#ifndef CAIRN_ENGINE_RANK_SETUP_H_
#define CAIRN_ENGINE_RANK_SETUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/cache_accountant.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "engine/model/model_config.h"
#include "engine/runner/model_runner.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/context.h"
#include "kernels/core/dtype.h"
#include "parallel/comm/process_groups.h"
#include "parallel/pipeline/partition.h"

namespace cairn {

struct RankSetup {
  EngineOptions options;  // resolved
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;  // leaders of a model that has one
  std::unique_ptr<Context> context;
  std::unique_ptr<ModelRunner> runner;
  std::vector<RankInfo> ranks;        // of the world
  std::vector<StageCapacity> stages;  // of a replica (the smallest over replicas)
};

// The type that --dtype asks for, given how the model is stored. INVALID_ARGUMENT for no type.
absl::StatusOr<DType> ComputeType(const std::string& flag, DType stored);

// Elements that a decode step reads, per layer and at the ends: what a stage is bound by. `max_length`: of a sequence.
PartitionCosts DecodeCosts(const ModelConfig& config, const EngineOptions& options, int64_t max_length);

// Collective over groups.world. `groups` must outlive the result.
absl::StatusOr<RankSetup> SetUpRank(EngineOptions options, ProcessGroups& groups);

}  // namespace cairn

#endif  // CAIRN_ENGINE_RANK_SETUP_H_
