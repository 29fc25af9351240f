// Fills a stage's layers with this rank's shard of the checkpoint, reading nothing else.
#ifndef CAIRN_ENGINE_MODEL_LOAD_TRANSFORMER_H_
#define CAIRN_ENGINE_MODEL_LOAD_TRANSFORMER_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/transformer.h"
#include "engine/weights/quantization.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/context.h"
#include "parallel/shard/shard.h"

namespace cairn {

struct StagePlacement {
  Range layers;  // of the stage, global
  int tp = 1, tp_rank = 0;
  bool first_stage = true, last_stage = true;
};

// Called after every layer with the share that is loaded, in (0, 1].
using LoadProgress = std::function<void(double)>;

// For the context's device and activation type. INVALID_ARGUMENT where the shape does not divide (parallel/shard says
// which sizes do), or what the source reports.
absl::StatusOr<StageWeights> LoadStage(const ModelConfig& config, const StagePlacement& placement, Context& context,
                                       Quantization quantization, WeightSource& source, const LoadProgress& progress);

}  // namespace cairn

#endif  // CAIRN_ENGINE_MODEL_LOAD_TRANSFORMER_H_
