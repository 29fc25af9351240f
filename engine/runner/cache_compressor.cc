#include "engine/runner/cache_compressor.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/copy.h"
#include "kernels/core/fnv1a.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

absl::StatusOr<std::unique_ptr<CacheCompressor>> CacheCompressor::Create(Context* context, ProcessGroups* groups,
                                                                         Footprint footprint, const CacheLayers& layers,
                                                                         int head_dim, int32_t max_slots,
                                                                         int max_sequences) {
  auto made = std::unique_ptr<CacheCompressor>(
      new CacheCompressor(context, groups, std::move(footprint), layers, max_sequences));
  CompressorShape shape = {.heads = layers.shard(), .head_dim = head_dim, .layers = {}, .max_slots = max_slots};
  for (int64_t l = 0; l < layers.size(); ++l) shape.layers.push_back(static_cast<int32_t>(layers.budget(l)));
  shape.max_layers = static_cast<int>(layers.size()) * max_sequences;
  const int first_rank = WorldRankOf({.tp = 0, .pp = groups->at.pp, .dp = groups->at.dp}, groups->sizes);
  CAIRN_ASSIGN_OR_RETURN(made->compressor_, Compressor::Create(*context, made->footprint_.config(), shape,
                                                               RankSync(groups->tp.get(), shape.heads, first_rank)));
  if (made->compressor_->scope() == KeepScope::kSequence && !groups->is_last_stage()) {
    const size_t sums = static_cast<size_t>(shape.max_slots) * sizeof(int64_t);
    CAIRN_RETURN_IF_ERROR(groups->pp->ReserveMessages(groups->sizes.pp, sums));
  }
  CAIRN_RETURN_IF_ERROR(made->AddWorkers(std::move(shape)));
  return made;
}

// An op on few heads leaves threads idle and has them wait for each other; an event has as many layers as the stage,
// and with scope head they have nothing to do with each other. Not for prompts, whose memory would be needed for each
// thread.
absl::Status CacheCompressor::AddWorkers(CompressorShape shape) {
  const int threads = context_->threads().num_threads();
  if (!has_own_heads() || !context_->device().is_cpu() || threads == 1 || layers_.size() == 1) return absl::OkStatus();
  const Budgets budgets = footprint_.BudgetsFor(shape.max_slots);
  shape.max_layers = 1;
  worker_slots_ =
      std::min(*std::max_element(budgets->begin(), budgets->end()) + footprint_.config().buffer, shape.max_slots);
  shape.max_slots = worker_slots_;
  for (int i = 0; i < threads; ++i) {
    Worker worker = {.context = Context::Cpu(1, context_->activation_dtype(), context_->cpu_kernels()),
                     .compressor = nullptr};
    CAIRN_ASSIGN_OR_RETURN(worker.compressor,
                           Compressor::Create(*worker.context, footprint_.config(), shape, compressor_->sync()));
    workers_.push_back(std::move(worker));
  }
  return absl::OkStatus();
}

CacheCompressor::CacheCompressor(Context* context, ProcessGroups* groups, Footprint footprint,
                                 const CacheLayers& layers, int max_sequences)
    : context_(context), groups_(groups), footprint_(std::move(footprint)), layers_(layers), open_(max_sequences) {}

void CacheCompressor::Open(const OpenSequence& open) {
  open_[open.sequence] = {
      .request_id = open.request_id, .index = open.sampler.index, .budgets = footprint_.BudgetsFor(open.prompt_length)};
  if (shadow_.has_value()) shadow_->Open(open.sequence);
}

void CacheCompressor::KeepShadow(const KvCache& cache) {
  shadow_.emplace(cache.layout(), cache.num_layers(), static_cast<int>(layers_.query_heads()),
                  static_cast<int>(open_.size()));
}

absl::Status CacheCompressor::WarmUp(KvCache& cache, int32_t slots) {
  Open({.sequence = 0, .sampler = {}, .prompt_length = slots});
  CAIRN_RETURN_IF_ERROR(WarmUp(*context_, *compressor_, cache, slots));
  for (Worker& worker : workers_) {
    CAIRN_RETURN_IF_ERROR(WarmUp(*worker.context, *worker.compressor, cache, std::min(slots, worker_slots_)));
  }
  return absl::OkStatus();
}

absl::Status CacheCompressor::WarmUp(Context& context, Compressor& compressor, KvCache& cache, int32_t slots) {
  const int32_t budget = BudgetOf(0, 0);
  if (slots <= budget) return absl::OkStatus();
  cache.Open(0);
  cache.Append(0, slots);
  cache.SendTables(context);
  CAIRN_ASSIGN_OR_RETURN(const EventQueries queries, compressor.Begin(cache.QueryRing(0, 0), slots));
  const LayerTask task = {.kv = cache.View(0, 0), .queries = queries, .layer = 0, .budget = budget};
  if (compressor.scope() == KeepScope::kSequence) {
    const Tensor sums = compressor.ZeroSums(context, slots);
    compressor.AddScores(context, {task}, sums);
    CAIRN_RETURN_IF_ERROR(compressor.SelectFrom(context, sums, slots, budget).status());
  } else {
    CAIRN_RETURN_IF_ERROR(compressor.Plan(context, {task}).status());
  }
  cache.Close(0);
  return absl::OkStatus();
}

void CacheCompressor::Apply(KvCache& cache, const std::vector<Compaction>& compactions) {
  const Stopwatch stopwatch(seconds_);
  for (const Compaction& compaction : compactions) {
    const Tensor kept = compressor_->PlaceKept(*context_, compaction.kept);
    std::vector<LayerId> layers;
    for (int layer = 0; layer < cache.num_layers(); ++layer) {
      layers.push_back({compaction.sequence, layer});
      if (records_) Record(*context_, cache, layers.back(), kept, evictions_);
    }
    cache.Compact(*context_, layers, kept, std::vector<int32_t>(layers.size(), static_cast<int32_t>(kept.dim(1))));
    cache.FreeTails(compaction.sequence);
  }
}

absl::Status CacheCompressor::Run(KvCache& cache, const StepPlan& plan, std::vector<Compaction>& selected) {
  const Stopwatch stopwatch(seconds_);
  fingerprints_.clear();
  waiting_.clear();
  side_by_side_.clear();
  observing_.clear();
  for (const SequenceStep& step : plan.sequences) {
    if (!step.compress && !step.observe) continue;
    CAIRN_ASSIGN_OR_RETURN(const EventQueries queries, BeginEvent(cache, step.sequence));
    if (!step.compress) {
      for (int layer = 0; layer < cache.num_layers(); ++layer) {
        NoteObservation(cache, {.id = {step.sequence, layer}, .queries = queries});
      }
    } else if (compressor_->scope() == KeepScope::kSequence) {
      CAIRN_RETURN_IF_ERROR(SelectForSequence(cache, step.sequence, queries, selected));
    } else {
      NoteLayers(cache, step.sequence, queries);
    }
    // Queries that other ranks have sent last until the next event.
    if (!has_own_heads()) CAIRN_RETURN_IF_ERROR(WorkOffWaiting(cache));
  }
  CAIRN_RETURN_IF_ERROR(WorkOffWaiting(cache));
  WorkOffSideBySide(cache);
  for (const SequenceStep& step : plan.sequences) {
    if (step.compress && compressor_->scope() != KeepScope::kSequence) cache.FreeTails(step.sequence);
  }
  return Agree(plan);
}

// One of the ranks that hold a KV head speaks for it.
void CacheCompressor::Record(Context& context, const KvCache& cache, const LayerId& id, const Tensor& kept,
                             std::vector<Eviction>& evictions) {
  if (layers_.shard().replica_index != 0) return;
  const auto [sequence, layer] = id;
  const KvView kv = cache.View(sequence, layer);
  if (shadow_.has_value()) shadow_->Extend(cache, sequence, layer);
  std::vector<int32_t> sets(static_cast<size_t>(kept.num_elements())), positions(kv.num_slots);
  CopyToHost(context, kept, sets.data());
  for (int head = 0; head < kv.layout.kv_heads; ++head) {
    const int32_t* slots = sets.data() + (kept.dim(0) == 1 ? 0 : head * kept.dim(1));
    for (int32_t begin = 0; begin < kv.num_slots; begin += kv.layout.block_size) {
      const int32_t count = std::min(kv.layout.block_size, kv.num_slots - begin);
      CopyToHost(context, Tensor(kv.position(head, begin), DType::kInt32, {count}, context.device()),
                 positions.data() + begin);
    }
    Eviction eviction = {.request_id = open_[sequence].request_id,
                         .index = open_[sequence].index,
                         .logical_length = cache.logical_length(sequence),
                         .layer = static_cast<int32_t>(layers_.layer(layer)),
                         .kv_head = static_cast<int32_t>(layers_.first_head(layer)) + head,
                         .slots = {slots, slots + kept.dim(1)}};
    for (const int32_t slot : eviction.slots) eviction.positions.push_back(positions[slot]);
    if (shadow_.has_value()) {
      const ShadowLoss loss = shadow_->Measure(cache, sequence, layer, head, eviction.positions);
      eviction.mass_lost = loss.mass_lost;
      eviction.output_error = loss.output_error;
    }
    evictions.push_back(std::move(eviction));
  }
}

absl::StatusOr<EventQueries> CacheCompressor::BeginEvent(const KvCache& cache, int32_t sequence) {
  CAIRN_ASSIGN_OR_RETURN(EventQueries queries,
                         compressor_->Begin(cache.QueryRing(sequence, 0), cache.logical_length(sequence)));
  queries.windows = ++open_[sequence].windows;
  return queries;
}

void CacheCompressor::NoteObservation(const KvCache& cache, LayerEvent event) {
  event.observes = true;
  const int32_t slots = cache.physical_length(event.id.sequence, event.id.layer);
  (IsForWorkers(slots) ? side_by_side_ : observing_).push_back(event);
}

// The layers of a sequence that have more slots than their budget: for WorkOffWaiting, or WorkOffSideBySide. The others
// observe, where the method does.
void CacheCompressor::NoteLayers(const KvCache& cache, int32_t sequence, const EventQueries& queries) {
  // Other ranks' heads may have budgets of their own.
  const bool is_shared = !layers_.by_head() || !has_own_heads();
  for (int layer = 0; layer < cache.num_layers(); ++layer) {
    const int32_t budget = BudgetOf(sequence, layer), slots = cache.physical_length(sequence, layer);
    uint64_t value = Fnv1a(kFnv1aSeed, static_cast<uint64_t>(cache.logical_length(sequence)));
    if (is_shared) value = Fnv1a(value, static_cast<uint64_t>(slots) << 32 | static_cast<uint32_t>(budget));
    const LayerEvent event = {.id = {sequence, layer}, .queries = queries, .number = fingerprints_.size()};
    fingerprints_.push_back(static_cast<int64_t>(value));
    if (slots <= budget) {
      if (compressor_->observes()) NoteObservation(cache, event);
      continue;
    }
    (IsForWorkers(slots) && !shadow_.has_value() ? side_by_side_ : waiting_).push_back(event);
  }
}

// As many together as the compressor takes.
absl::Status CacheCompressor::InTurn(const KvCache& cache, absl::Span<const LayerEvent> events,
                                     absl::FunctionRef<absl::Status(absl::Span<const LayerEvent>)> together) {
  for (size_t begin = 0, end = 0; begin < events.size(); begin = end) {
    int32_t longest = 0;
    for (; end < events.size(); ++end) {
      longest = std::max(longest, cache.physical_length(events[end].id.sequence, events[end].id.layer));
      if (end > begin && !compressor_->Takes(end + 1 - begin, longest)) break;
    }
    CAIRN_RETURN_IF_ERROR(together(events.subspan(begin, end - begin)));
  }
  return absl::OkStatus();
}

absl::Status CacheCompressor::WorkOffWaiting(KvCache& cache) {
  CAIRN_RETURN_IF_ERROR(InTurn(cache, waiting_, [&](absl::Span<const LayerEvent> events) {
    return CompressTogether(*context_, *compressor_, cache, events, evictions_);
  }));
  CAIRN_RETURN_IF_ERROR(InTurn(cache, observing_, [&](absl::Span<const LayerEvent> events) {
    compressor_->Observe(*context_, TasksOf(cache, events));
    return absl::OkStatus();
  }));
  waiting_.clear();
  observing_.clear();
  return absl::OkStatus();
}

// Of layers that no other rank has a part in: nothing waits, nothing fails.
void CacheCompressor::WorkOffSideBySide(KvCache& cache) {
  std::vector<std::vector<Eviction>> evictions(side_by_side_.size());
  context_->threads().ParallelFor(static_cast<int64_t>(side_by_side_.size()), [&](int64_t task, int thread) {
    Worker& worker = workers_[thread];
    const absl::Span<const LayerEvent> event = absl::MakeConstSpan(&side_by_side_[task], 1);
    if (event[0].observes) return worker.compressor->Observe(*worker.context, TasksOf(cache, event));
    const absl::Status status = CompressTogether(*worker.context, *worker.compressor, cache, event, evictions[task]);
    CAIRN_CHECK(status.ok(), status.ToString());
  });
  for (std::vector<Eviction>& some : evictions) {
    std::move(some.begin(), some.end(), std::back_inserter(evictions_));
  }
}

std::vector<LayerTask> CacheCompressor::TasksOf(const KvCache& cache, absl::Span<const LayerEvent> events) const {
  std::vector<LayerTask> tasks;
  for (const LayerEvent& event : events) {
    const auto [sequence, layer] = event.id;
    tasks.push_back({.kv = cache.View(sequence, layer),
                     .queries = event.queries,
                     .layer = layer,
                     .budget = BudgetOf(sequence, layer)});
  }
  return tasks;
}

absl::Status CacheCompressor::CompressTogether(Context& context, Compressor& compressor, KvCache& cache,
                                               absl::Span<const LayerEvent> events, std::vector<Eviction>& evictions) {
  std::vector<LayerId> layers;
  for (const LayerEvent& event : events) layers.push_back(event.id);
  CAIRN_ASSIGN_OR_RETURN(const KeepPlan plan, compressor.Plan(context, TasksOf(cache, events)));
  for (size_t l = 0; l < events.size(); ++l) {
    // Where every rank has heads of its own there is no set to compare: the counts, and the length that led to them.
    if (!has_own_heads()) {
      uint64_t value = static_cast<uint64_t>(fingerprints_[events[l].number]);
      for (const int64_t fingerprint : compressor.Fingerprints(context, plan.Of(l))) {
        value = Fnv1a(value, static_cast<uint64_t>(fingerprint));
      }
      fingerprints_[events[l].number] = static_cast<int64_t>(value);
    }
    if (records_) Record(context, cache, layers[l], plan.Of(l), evictions);
  }
  cache.Compact(context, layers, plan.kept, plan.sizes);
  return absl::OkStatus();
}

// Scores of all layers of all stages are summed on their way down the pipeline.
absl::Status CacheCompressor::SelectForSequence(KvCache& cache, int32_t sequence, const EventQueries& queries,
                                                std::vector<Compaction>& selected) {
  const int32_t slots = cache.physical_length(sequence, 0), budget = BudgetOf(sequence, 0);
  const Tensor sums = compressor_->ZeroSums(*context_, slots);
  if (!groups_->is_first_stage()) CAIRN_RETURN_IF_ERROR(groups_->pp->Recv(sums, groups_->at.pp - 1));
  std::vector<LayerTask> tasks;
  for (int layer = 0; layer < cache.num_layers(); ++layer) {
    if (!tasks.empty() && !compressor_->Takes(tasks.size() + 1, slots)) {
      compressor_->AddScores(*context_, tasks, sums);
      tasks.clear();
    }
    tasks.push_back({.kv = cache.View(sequence, layer), .queries = queries, .layer = layer, .budget = budget});
  }
  compressor_->AddScores(*context_, tasks, sums);
  if (!groups_->is_last_stage()) return groups_->pp->Send(sums, groups_->at.pp + 1);
  CAIRN_ASSIGN_OR_RETURN(const KeepPlan plan, compressor_->SelectFrom(*context_, sums, slots, budget));
  selected.push_back({.sequence = sequence, .kept = std::vector<int32_t>(static_cast<size_t>(plan.sizes[0]))});
  CopyToHost(*context_, plan.kept, selected.back().kept.data());
  fingerprints_.push_back(compressor_->Fingerprints(*context_, plan.kept)[0]);
  return absl::OkStatus();
}

absl::Status CacheCompressor::Agree(const StepPlan& plan) {
  const bool per_layer = compressor_->scope() != KeepScope::kSequence;
  const auto describe = [&](size_t value) {
    const size_t per_event = per_layer ? static_cast<size_t>(layers_.size()) : 1;
    size_t event = value / per_event;
    for (const SequenceStep& step : plan.sequences) {
      if (!step.compress || event-- > 0) continue;
      return absl::StrCat(
          per_layer ? absl::StrCat("layer ", layers_.layer(static_cast<int64_t>(value % per_event)), " of ") : "",
          "request '", open_[step.sequence].request_id, "'");
    }
    return std::string("an unknown request");
  };
  const bool among_replicas = compressor_->scope() == KeepScope::kHead && compressor_->sync().is_replicated();
  return compressor_->sync().CheckAgreement(
      fingerprints_, among_replicas ? RankSync::Among::kReplicas : RankSync::Among::kGroup, describe);
}

}  // namespace cairn
