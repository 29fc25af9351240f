// Carries out a plan's compressions on this rank: plans what each layer keeps, checks that the ranks agree, and has the
// cache compacted.
#ifndef CAIRN_ENGINE_RUNNER_CACHE_COMPRESSOR_H_
#define CAIRN_ENGINE_RUNNER_CACHE_COMPRESSOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compression/compressor.h"
#include "engine/cache/cache_layers.h"
#include "engine/cache/footprint.h"
#include "engine/cache/kv_cache.h"
#include "engine/eviction.h"
#include "engine/runner/shadow_cache.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/core/context.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

class CacheCompressor {
 public:
  // None of the pointers is owned. `layers`: of this rank's cache; `footprint`: of the whole model. No layer has more
  // than `max_slots`.
  static absl::StatusOr<std::unique_ptr<CacheCompressor>> Create(Context* context, ProcessGroups* groups,
                                                                 Footprint footprint, const CacheLayers& layers,
                                                                 int head_dim, int32_t max_slots, int max_sequences);

  void Open(const OpenSequence& open);
  // What the last stage has selected in an earlier step. Before the plan's sequences are appended to.
  void Apply(KvCache& cache, const std::vector<Compaction>& compactions);
  // The events and observations of the plan, after its forward has gone through this stage's layers. On the last stage,
  // with scope sequence, adds what is to be kept to `selected`.
  absl::Status Run(KvCache& cache, const StepPlan& plan, std::vector<Compaction>& selected);

  // One layer of `slots` slots is scored and selected from, so that later ones allocate nothing; the cache stays as it
  // was, without sequences. Collective where events are.
  absl::Status WarmUp(KvCache& cache, int32_t slots);

  // From now on keep a record of every compaction, until it is taken.
  void RecordEvictions() { records_ = true; }
  // Records have what is lost against the full cache, of which a copy is kept. The cache has query rings.
  void KeepShadow(const KvCache& cache);
  std::vector<Eviction> TakeEvictions() { return std::exchange(evictions_, {}); }

  double seconds() const { return seconds_; }  // spent in Apply and Run

 private:
  struct OpenInfo {
    std::string request_id;
    int32_t index = 0;
    Budgets budgets = {};
    int32_t windows = 0;  // whose queries its slots have seen
  };

  CacheCompressor(Context* context, ProcessGroups* groups, Footprint footprint, const CacheLayers& layers,
                  int max_sequences);

  // Where layers are compressed side by side, what a thread needs for itself.
  struct Worker {
    std::unique_ptr<Context> context;
    std::unique_ptr<Compressor> compressor;
  };
  // An event's layer; `number` counts the layers of the step's events. Or one that observes alone.
  struct LayerEvent {
    LayerId id;
    EventQueries queries;
    size_t number = 0;
    bool observes = false;
  };

  absl::Status AddWorkers(CompressorShape shape);
  absl::Status WarmUp(Context& context, Compressor& compressor, KvCache& cache, int32_t slots);
  void Record(Context& context, const KvCache& cache, const LayerId& id, const Tensor& kept,
              std::vector<Eviction>& evictions);
  void NoteLayers(const KvCache& cache, int32_t sequence, const EventQueries& queries);
  void NoteObservation(const KvCache& cache, LayerEvent event);
  absl::StatusOr<EventQueries> BeginEvent(const KvCache& cache, int32_t sequence);
  absl::Status InTurn(const KvCache& cache, absl::Span<const LayerEvent> events,
                      absl::FunctionRef<absl::Status(absl::Span<const LayerEvent>)> together);
  absl::Status WorkOffWaiting(KvCache& cache);
  void WorkOffSideBySide(KvCache& cache);
  std::vector<LayerTask> TasksOf(const KvCache& cache, absl::Span<const LayerEvent> events) const;
  absl::Status CompressTogether(Context& context, Compressor& compressor, KvCache& cache,
                                absl::Span<const LayerEvent> events, std::vector<Eviction>& evictions);
  absl::Status SelectForSequence(KvCache& cache, int32_t sequence, const EventQueries& queries,
                                 std::vector<Compaction>& selected);
  // Whether no other rank has a part in what a layer here keeps.
  bool has_own_heads() const {
    return compressor_->scope() == KeepScope::kHead && !compressor_->sync().is_replicated();
  }
  bool IsForWorkers(int32_t slots) const { return !workers_.empty() && slots <= worker_slots_; }
  int32_t BudgetOf(int32_t sequence, int layer) const { return (*open_[sequence].budgets)[layers_.budget(layer)]; }
  absl::Status Agree(const StepPlan& plan);

  Context* context_;
  ProcessGroups* groups_;
  Footprint footprint_;
  CacheLayers layers_;
  std::unique_ptr<Compressor> compressor_;
  std::vector<Worker> workers_;  // one for each thread; none where one layer comes after the other
  int32_t worker_slots_ = 0;     // of the longest layer that they compress
  std::vector<LayerEvent> waiting_, side_by_side_, observing_;
  std::vector<OpenInfo> open_;         // by handle
  std::vector<int64_t> fingerprints_;  // of the step at hand: a value for each (event, layer)
  bool records_ = false;
  std::vector<Eviction> evictions_;
  std::optional<ShadowCache> shadow_;
  double seconds_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_CACHE_COMPRESSOR_H_
