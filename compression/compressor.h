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
#include "kernels/ops/kv_select.h"
#include "parallel/shard/shard.h"

namespace cairn {

struct CompressorShape {
  HeadShard heads;
  int head_dim = 0;
  std::vector<int32_t> layers;  // of this stage: what tells each from all others of the model
  int32_t max_slots = 0;        // the longest layer that is ever compressed
  int max_layers = 1;           // layers that may be compressed at the same time, of all sequences
};

// The last queries of a sequence: rings [num_layers, window, query heads, head_dim] f32, of which row `oldest` is the
// oldest. Null where the method needs none.
struct EventQueries {
  const float* rings = nullptr;
  int32_t oldest = 0;
  int32_t windows = 1;  // that the sequence's slots have seen, this one included (Scorer::observes)
};

// A layer of a sequence, and how many of its slots stay.
struct LayerTask {
  KvView kv;
  EventQueries queries;  // of its sequence
  int layer = 0;         // of this stage
  int32_t budget = 0;    // < kv.num_slots
};

class Compressor {
 public:
  // Allocates all that planning needs. RESOURCE_EXHAUSTED where that does not fit.
  static absl::StatusOr<std::unique_ptr<Compressor>> Create(Context& context, const CompressionConfig& config,
                                                            const CompressorShape& shape, RankSync sync);

  KeepScope scope() const { return scope_; }
  RankSync& sync() { return sync_; }

  // Whether the method has to see queries between events.
  bool observes() const { return scorer_->observes(); }

  // Whether Plan and Observe take so many layers together, the longest of so many slots. On CPU one; on a GPU as many
  // as fill it.
  bool Takes(size_t layers, int32_t slots) const;

  // Begins an event of one sequence. rings: of this rank (read where the method needs queries), `logical_length` tokens
  // having gone through them. Where KV heads are replicated it is collective, and what it returns is valid until the
  // next event begins.
  absl::StatusOr<EventQueries> Begin(const float* rings, int64_t logical_length);

  // Scopes head and layer: what layers (of this stage) keep, each by itself. Scope layer is collective.
  absl::StatusOr<KeepPlan> Plan(Context& context, absl::Span<const LayerTask> layers);

  // The running scores of the layers' slots see the window's queries; nothing is kept or dropped.
  void Observe(Context& context, absl::Span<const LayerTask> layers);

  // Scope sequence: adds this rank's part of the layers' scores to sums [num_slots - window] int64 (fixed point; all
  // layers have as many slots); after all layers of all stages, SelectFrom sums over the tp group and selects.
  // Collective.
  void AddScores(Context& context, absl::Span<const LayerTask> layers, const Tensor& sums);
  absl::StatusOr<KeepPlan> SelectFrom(Context& context, const Tensor& sums, int32_t num_slots, int32_t budget);
  // [num_slots - window] int64 zeros.
  Tensor ZeroSums(Context& context, int32_t num_slots);

  // FNV-1a 64 of each row of one layer of a plan (the bits): what ranks compare. Waits for the plan.
  std::vector<int64_t> Fingerprints(Context& context, const Tensor& kept);
  // A kept set that another rank has chosen, on this one's device: [1, K], until the next plan.
  Tensor PlaceKept(Context& context, absl::Span<const int32_t> kept);

 private:
  Compressor(const CompressionConfig& config, const CompressorShape& shape, RankSync sync, bool is_cpu);

  absl::Status Allocate(Device device);
  // What a scorer is given, of layers of up to `longest` slots.
  struct Inputs {
    std::vector<KvView> kv;
    std::vector<int32_t> numbers, windows;
    Tensor queries;
    int32_t longest = 0;

    ScorerInputs View(int32_t first_kv_head) const {
      return {.kv = kv, .queries = queries, .layers = numbers, .windows = windows, .first_kv_head = first_kv_head};
    }
  };
  Inputs InputsOf(Context& context, absl::Span<const LayerTask> layers);
  Tensor Score(Context& context, absl::Span<const LayerTask> layers);
  void AddHeads(Context& context, const Tensor& scores, const Tensor& sums);
  Selection SelectionOf(int32_t num_slots, int32_t budget) const;
  KeepPlan Select(Context& context, const Tensor& scores, absl::Span<const Selection> layers);

  CompressionConfig config_;
  KeepScope scope_;
  CompressorShape shape_;
  RankSync sync_;
  std::unique_ptr<Scorer> scorer_;
  int32_t layers_at_once_ = 1, slots_at_once_ = 0;  // the slots are counted in whole units of kScoreSlots

  Buffer memory_;
  Tensor gathered_;      // [tp, num_layers * window * heads * head_dim] f32
  Tensor queries_;       // [layers_at_once * window, kv_heads * group, head_dim] f32
  Tensor scores_;        // [kv_heads * slots_at_once] f32
  Tensor sums_;          // [slots_at_once] int64
  Tensor kept_;          // [kv_heads * slots_at_once] int32
  Tensor fingerprints_;  // [kv_heads] int64
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_COMPRESSOR_H_
