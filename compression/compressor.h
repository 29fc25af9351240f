// Plans what one rank's layers keep: score, agree, select. It never touches the cache beyond reading it and updating
// the running scores; the engine applies its plans.
#ifndef CAIRN_COMPRESSION_COMPRESSOR_H_
#define CAIRN_COMPRESSION_COMPRESSOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/compression_config.h"
#include "compression/keep_plan.h"
#include "compression/rank_sync.h"
#include "compression/scorer.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "parallel/shard/shard.h"

namespace cairn {

struct CompressorShape {
  HeadShard heads;
  int head_dim = 0;
  int first_layer = 0;    // of this stage
  int num_layers = 0;     // of this stage
  int32_t max_slots = 0;  // the longest layer that is ever compressed
};

class Compressor {
 public:
  // Allocates all that planning needs. RESOURCE_EXHAUSTED where that does not fit.
  static absl::StatusOr<std::unique_ptr<Compressor>> Create(Context& context, const CompressionConfig& config,
                                                            const CompressorShape& shape, RankSync sync);

  KeepScope scope() const { return scope_; }
  RankSync& sync() { return sync_; }

  // Begins an event of one sequence. rings: [num_layers, window, query heads, head_dim] f32 of this rank (read where
  // the method needs queries), `logical_length` tokens having gone through them. Collective where KV heads are
  // replicated.
  absl::Status Begin(const float* rings, int64_t logical_length);

  // Scopes head and layer: what `layer` (of this stage) keeps. Scope layer is collective. budget < kv.num_slots.
  absl::StatusOr<KeepPlan> Plan(Context& context, int layer, const KvView& kv, int32_t budget);

  // Scope sequence: adds this rank's part of a layer's scores to sums [num_slots - window] int64 (fixed point); after
  // all layers of all stages, SelectFrom sums over the tp group and selects. Collective.
  void AddScores(Context& context, int layer, const KvView& kv, const Tensor& sums);
  absl::StatusOr<KeepPlan> SelectFrom(Context& context, const Tensor& sums, int32_t num_slots, int32_t budget);
  // [num_slots - window] int64 zeros.
  Tensor ZeroSums(Context& context, int32_t num_slots);

  // FNV-1a 64 of each row of plan.kept (the bits): what ranks compare. Waits for the plan.
  std::vector<int64_t> Fingerprints(Context& context, const KeepPlan& plan);
  // A kept set that another rank has chosen, on this one's device: [1, K], until the next plan.
  Tensor PlaceKept(Context& context, absl::Span<const int32_t> kept);

 private:
  Compressor(const CompressionConfig& config, const CompressorShape& shape, RankSync sync);

  absl::Status Allocate(Device device);
  Tensor Score(Context& context, int layer, const KvView& kv);
  KeepPlan Select(Context& context, const Tensor& scores, int32_t num_slots, int32_t budget);

  CompressionConfig config_;
  KeepScope scope_;
  CompressorShape shape_;
  RankSync sync_;
  std::unique_ptr<Scorer> scorer_;

  const float* rings_ = nullptr;  // of the event at hand: this rank's, or the gathered ones
  int oldest_ = 0;
  Buffer memory_;
  Tensor gathered_;      // [tp, num_layers * window * heads * head_dim] f32
  Tensor queries_;       // [window, kv_heads * group, head_dim] f32
  Tensor scores_;        // [kv_heads * max_slots] f32
  Tensor sums_;          // [max_slots] int64
  Tensor kept_;          // [kv_heads * max_slots] int32
  Tensor fingerprints_;  // [kv_heads] int64
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_COMPRESSOR_H_
