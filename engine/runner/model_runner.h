// A StepPlan in, token ids out: the same code on every rank of a replica. Ranks of the first stage embed, the others
// receive the residual stream; the last stage samples on its tp rank 0, the others hand the stream on.
#ifndef CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_
#define CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/kv_cache.h"
#include "engine/model/transformer.h"
#include "engine/model/workspace.h"
#include "engine/runner/cache_compressor.h"
#include "engine/runner/sampler.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/core/context.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

class ModelRunner {
 public:
  // `context` and `groups` are not owned. `max_slots`: the longest layer that is ever compressed.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(Context* context, ProcessGroups* groups,
                                                             Transformer transformer, KvCache cache,
                                                             const CompressionConfig& compression, int max_sequences,
                                                             int64_t max_tokens, int64_t max_slots);

  // Carries out the plan on this rank. A result on the sampling rank (last stage, tp rank 0), empty where the plan
  // samples nothing; none on the others.
  absl::StatusOr<std::optional<StepResult>> Run(const StepPlan& plan);

  bool is_sampling_rank() const { return groups_->is_last_stage() && groups_->at.tp == 0; }
  const KvCache& cache() const { return cache_; }
  const Transformer& transformer() const { return transformer_; }
  // Null without compression.
  CacheCompressor* compressor() { return compressor_.get(); }
  double compression_seconds() const { return compressor_ == nullptr ? 0 : compressor_->seconds(); }

 private:
  ModelRunner(Context* context, ProcessGroups* groups, Transformer transformer, KvCache cache, Workspace workspace,
              int max_sequences);

  absl::StatusOr<std::optional<StepResult>> Forward(const StepPlan& plan);
  void OpenAndClose(const StepPlan& plan);
  void FillRows(const StepPlan& plan);
  absl::StatusOr<std::optional<StepResult>> SampleRows(const StepPlan& plan, const Tensor& hidden);

  Context* context_;
  ProcessGroups* groups_;
  Transformer transformer_;
  KvCache cache_;
  Workspace workspace_;
  std::unique_ptr<Sampler> sampler_;             // on the sampling rank
  std::unique_ptr<CacheCompressor> compressor_;  // where there is compression
  // Of the step at hand; kept to reuse their memory.
  StepRows rows_;
  std::vector<Sampler::Row> sampled_rows_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_
