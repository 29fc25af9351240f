// A StepPlan in, token ids out: the same code on every rank of a replica. Ranks of the first stage embed, the others
// receive the residual stream; the last stage samples, its tp rank 0 has the tokens, the others hand the stream on.
#ifndef CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_
#define CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/kv_cache.h"
#include "engine/model/transformer.h"
#include "engine/model/workspace.h"
#include "engine/runner/cache_compressor.h"
#include "engine/runner/sampler.h"
#include "engine/runner/shard_sampler.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/core/context.h"
#include "kernels/core/pinned_memory.h"
#include "kernels/ops/decode_graphs.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

// Of the activations of a rank's largest step: `activations` as the device stores them (Context::storage_dtype).
WorkspaceShape ShapeOfSteps(const ModelConfig& config, const HeadShard& heads, const ParallelSizes& sizes,
                            const RankCoordinates& at, DType activations, int max_sequences, int64_t max_tokens);
// What they take on a GPU: the workspace and, where the stage sends over NCCL, a copy of the largest message for each
// step that is under way.
int64_t DeviceBytesOfSteps(const WorkspaceShape& shape, const ParallelSizes& sizes, const RankCoordinates& at);

class ModelRunner {
 public:
  // Allocates all that a step needs but the cache. `context` and `groups` are not owned. `max_slots`: the longest layer
  // that is ever compressed.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(Context* context, ProcessGroups* groups,
                                                             Transformer transformer,
                                                             const CompressionConfig& compression, int max_sequences,
                                                             int64_t max_tokens, int64_t max_slots);
  // Before the first Run. `records_steps`: decode steps are recorded and replayed, where device and ranks allow it.
  absl::Status SetCache(KvCache cache, bool records_steps);
  // On a GPU: runs made-up steps of the largest kinds, and a decode step of every size that is recorded, so that steps
  // allocate nothing from then on. `cache_tokens` fit the cache of every rank, `max_length` of one sequence. Collective
  // over the replica.
  absl::Status WarmUp(int64_t max_length, int64_t cache_tokens);

  // Carries out the plan on this rank. A result on the sampling rank (last stage, tp rank 0), empty where the plan
  // samples nothing; none on the others.
  absl::StatusOr<std::optional<StepResult>> Run(const StepPlan& plan);

  bool is_sampling_rank() const { return groups_->is_last_stage() && groups_->at.tp == 0; }
  const KvCache& cache() const { return *cache_; }
  const Transformer& transformer() const { return transformer_; }
  // Null without compression.
  CacheCompressor* compressor() { return compressor_.get(); }
  // Null where steps are not recorded.
  const DecodeGraphs* graphs() const { return graphs_.get(); }
  double compression_seconds() const { return compressor_ == nullptr ? 0 : compressor_->seconds(); }

 private:
  ModelRunner(Context* context, ProcessGroups* groups, Transformer transformer, Workspace workspace, int max_sequences);

  absl::StatusOr<std::optional<StepResult>> Forward(const StepPlan& plan);
  void OpenAndClose(const StepPlan& plan);
  void FillRows(const StepPlan& plan);
  absl::Status RunLayers(StepRows& rows, const Tensor& hidden);
  absl::Status RunRecorded();
  absl::Status RunMadeUp(int sequences, int64_t tokens);
  int64_t OrderSampled();
  absl::StatusOr<std::optional<StepResult>> SampleRows(const StepPlan& plan, const Tensor& hidden);
  absl::Status WaitForRanks();
  Tensor OnHost(const Tensor& logits);

  Context* context_;
  ProcessGroups* groups_;
  int max_sequences_;
  Transformer transformer_;
  std::optional<KvCache> cache_;
  Workspace workspace_;
  PinnedMemory host_logits_;                     // of a GPU, on the sampling rank
  std::unique_ptr<Sampler> sampler_;             // on the last stage
  ShardSampler shard_sampler_;                   // likewise
  std::unique_ptr<CacheCompressor> compressor_;  // where there is compression
  std::unique_ptr<DecodeGraphs> graphs_;         // where decode steps are recorded
  // Of the step at hand; kept to reuse their memory.
  StepRows rows_, recorded_rows_;
  std::vector<KvView> views_;
  std::vector<float*> rings_;
  std::vector<int32_t> ids_, positions_;  // of the rows
  // What gets a token, and the row whose logits give it: those that need whole rows of logits first. Which of the
  // plan's rows they are.
  std::vector<Sampler::Row> sampled_;
  std::vector<int32_t> last_rows_, places_;
  std::vector<int64_t> shard_tokens_;
  std::vector<StepResult::Token> whole_tokens_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_MODEL_RUNNER_H_
