#include "compression/compressor.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"
#include "kernels/ops/window_queries.h"

namespace cairn {
namespace {

// The first rows x columns elements of a flat tensor.
Tensor Matrix(const Tensor& flat, int64_t rows, int64_t columns) {
  return flat.Rows(0, rows * columns).Reshape({rows, columns});
}

// Enough for every multiprocessor of a large GPU to have work at any step of an event: 56 layers of budget 1024 and
// buffer 128, or 64 of fewer slots.
constexpr int32_t kLayersAtOnce = 64, kSlotsAtOnce = 1 << 16;

void CheckPlan(const KeepPlan& plan, absl::Span<const Selection> layers) {
  for (size_t l = 0; l < layers.size(); ++l) {
    const Tensor rows = plan.Of(l);
    const int32_t recent = layers[l].recent, num_slots = layers[l].candidates + recent, K = layers[l].keep;
    for (int64_t row = 0; row < rows.dim(0); ++row) {
      const int32_t* kept = rows.data<int32_t>() + row * rows.row_stride();
      CAIRN_CHECK(kept[0] >= 0 && kept[K - 1] == num_slots - 1 && kept[K - recent] == num_slots - recent,
                  "the last slots are not kept");
      for (int32_t i = 1; i < K; ++i) CAIRN_CHECK(kept[i - 1] < kept[i], "kept slots do not ascend");
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::Create(Context& context, const CompressionConfig& config,
                                                               const CompressorShape& shape, RankSync sync) {
  const bool is_cpu = context.device().is_cpu();
  auto compressor = std::unique_ptr<Compressor>(new Compressor(config, shape, sync, is_cpu));
  CAIRN_RETURN_IF_ERROR(compressor->Allocate(context.device()));
  if (is_cpu) return compressor;  // there, memory comes when it is needed
  KvBlockLayout layout;
  layout.kv_heads = static_cast<int>(shape.heads.kv_heads.size());
  layout.head_dim = shape.head_dim;
  const int64_t group = shape.heads.query_heads.size() * shape.heads.kv_replicas / layout.kv_heads;
  ReserveScoreMemory(context, layout, compressor->slots_at_once_, config.window * group);
  const int64_t windows = int64_t{compressor->layers_at_once_} * config.window;  // some look at these slots too
  compressor->scorer_->Reserve(context, layout.kv_heads * (compressor->slots_at_once_ + windows));
  return compressor;
}

Compressor::Compressor(const CompressionConfig& config, const CompressorShape& shape, RankSync sync, bool is_cpu)
    : config_(config), scope_(config.keep_scope()), shape_(shape), sync_(sync), scorer_(MakeScorer(config)) {
  const int32_t longest = WholeScoreSlots(shape.max_slots);
  slots_at_once_ = longest;
  if (is_cpu) return;
  layers_at_once_ = std::clamp(shape.max_layers, 1, kLayersAtOnce);
  slots_at_once_ = std::max<int32_t>(
      longest, static_cast<int32_t>(std::min<int64_t>(int64_t{layers_at_once_} * longest, kSlotsAtOnce)));
}

bool Compressor::Takes(size_t layers, int32_t slots) const {
  return static_cast<int64_t>(layers) <= layers_at_once_ &&
         static_cast<int64_t>(layers) * WholeScoreSlots(slots) <= slots_at_once_;
}

absl::Status Compressor::Allocate(Device device) {
  const int64_t w = config_.window, d = shape_.head_dim, kv_heads = shape_.heads.kv_heads.size();
  const int64_t heads = shape_.heads.query_heads.size(), replicas = shape_.heads.kv_replicas;
  const int64_t queries = scorer_->needs_queries() ? layers_at_once_ * w * heads * replicas * d : 0;
  const int64_t gathered = scorer_->needs_queries() && sync_.is_replicated()
                               ? sync_.tp_size() * static_cast<int64_t>(shape_.layers.size()) * w * heads * d
                               : 0;
  const int64_t sums = scope_ == KeepScope::kHead ? 0 : slots_at_once_;
  struct Part {
    Tensor* tensor;
    DType dtype;
    int64_t elements;
  };
  const Part parts[] = {{&gathered_, DType::kFloat32, gathered},
                        {&queries_, DType::kFloat32, queries},
                        {&scores_, DType::kFloat32, kv_heads * slots_at_once_},
                        {&sums_, DType::kInt64, sums},
                        {&kept_, DType::kInt32, kv_heads * slots_at_once_},
                        {&fingerprints_, DType::kInt64, kv_heads}};
  size_t bytes = 0;
  for (const Part& part : parts) bytes += KvBlockLayout::Align(part.elements * DTypeSize(part.dtype));
  CAIRN_ASSIGN_OR_RETURN(memory_, Buffer::Allocate(device, bytes));
  uint8_t* at = memory_.data();
  for (const Part& part : parts) {
    *part.tensor = Tensor(at, part.dtype, {part.elements}, device);
    at += KvBlockLayout::Align(part.elements * DTypeSize(part.dtype));
  }
  if (gathered > 0) gathered_ = Matrix(gathered_, sync_.tp_size(), gathered / sync_.tp_size());
  if (queries > 0) {
    queries_ = Tensor(queries_.raw(), DType::kFloat32, {layers_at_once_ * w, heads * replicas, d}, device);
  }
  return absl::OkStatus();
}

absl::StatusOr<EventQueries> Compressor::Begin(const float* rings, int64_t logical_length) {
  if (!scorer_->needs_queries()) return EventQueries();
  CAIRN_CHECK(logical_length >= config_.window, "the query ring is not full at ", logical_length, " tokens");
  const int32_t oldest = static_cast<int32_t>(logical_length % config_.window);  // the next query would replace it
  if (!sync_.is_replicated()) return EventQueries{rings, oldest};
  const Tensor mine(const_cast<float*>(rings), DType::kFloat32, {gathered_.dim(1)}, gathered_.device());
  CAIRN_RETURN_IF_ERROR(sync_.GatherQueries(mine, gathered_));
  return EventQueries{gathered_.data<float>(), oldest};
}

Compressor::Inputs Compressor::InputsOf(Context& context, absl::Span<const LayerTask> layers) {
  Inputs inputs;
  std::vector<WindowRing> rings;
  const int64_t floats = static_cast<int64_t>(config_.window) * shape_.heads.query_heads.size() * shape_.head_dim;
  const int replicas = shape_.heads.kv_replicas;
  for (const LayerTask& task : layers) {
    CAIRN_CHECK(task.kv.num_slots > config_.window, task.kv.num_slots, " slots, a window of ", config_.window);
    inputs.longest = std::max(inputs.longest, task.kv.num_slots);
    inputs.kv.push_back(task.kv);
    inputs.numbers.push_back(shape_.layers[task.layer]);
    inputs.windows.push_back(task.queries.windows);
    for (int replica = 0; replica < replicas && scorer_->needs_queries(); ++replica) {
      const int64_t peer = sync_.is_replicated() ? sync_.Peer(replica) * gathered_.dim(1) : 0;
      rings.push_back({task.queries.rings + peer + task.layer * floats, task.queries.oldest});
    }
  }
  const int64_t count = static_cast<int64_t>(layers.size());
  CAIRN_CHECK(Takes(layers.size(), inputs.longest), count, " layers of ", inputs.longest, " slots, room for ",
              slots_at_once_);
  if (scorer_->needs_queries()) {
    inputs.queries = queries_.Rows(0, count * config_.window);
    WindowQueries(context, rings, replicas, inputs.queries);
  }
  return inputs;
}

// scores [layers * kv_heads, the largest n - w] of this rank's heads.
Tensor Compressor::Score(Context& context, absl::Span<const LayerTask> layers) {
  const Inputs inputs = InputsOf(context, layers);
  const int64_t rows = static_cast<int64_t>(layers.size()) * shape_.heads.kv_heads.size();
  const Tensor scores = Matrix(scores_, rows, inputs.longest - config_.window);
  scorer_->Score(context, inputs.View(static_cast<int32_t>(shape_.heads.kv_heads.begin)), scores);
  return scores;
}

void Compressor::Observe(Context& context, absl::Span<const LayerTask> layers) {
  scorer_->Observe(context, InputsOf(context, layers).View(static_cast<int32_t>(shape_.heads.kv_heads.begin)));
}

Selection Compressor::SelectionOf(int32_t num_slots, int32_t budget) const {
  CAIRN_CHECK(budget < num_slots && budget > config_.window, "keep ", budget, " of ", num_slots);
  const int32_t recent = config_.RecentSlots(budget);
  return {.candidates = num_slots - recent, .recent = recent, .keep = budget};
}

KeepPlan Compressor::Select(Context& context, const Tensor& scores, absl::Span<const Selection> layers) {
  KeepPlan plan;
  for (const Selection& layer : layers) plan.sizes.push_back(layer.keep);
  plan.kept = Matrix(kept_, scores.dim(0), *std::max_element(plan.sizes.begin(), plan.sizes.end()));
  SelectTopK(context, scores, layers, scorer_->num_sinks(), plan.kept);
  if (context.device().is_cpu()) CheckPlan(plan, layers);
  return plan;
}

std::vector<int64_t> Compressor::Fingerprints(Context& context, const Tensor& kept) {
  const Tensor fingerprints = fingerprints_.Rows(0, kept.dim(0));
  FingerprintRows(context, kept, fingerprints);
  std::vector<int64_t> values(static_cast<size_t>(fingerprints.dim(0)));
  CopyToHost(context, fingerprints, values.data());
  return values;
}

Tensor Compressor::PlaceKept(Context& context, absl::Span<const int32_t> kept) {
  const Tensor placed = Matrix(kept_, 1, static_cast<int64_t>(kept.size()));
  CopyFromHost(context, kept.data(), placed);
  return placed;
}

absl::StatusOr<KeepPlan> Compressor::Plan(Context& context, absl::Span<const LayerTask> layers) {
  const Tensor scores = Score(context, layers);
  std::vector<Selection> selections;
  for (const LayerTask& task : layers) selections.push_back(SelectionOf(task.kv.num_slots, task.budget));
  if (scope_ == KeepScope::kHead) return Select(context, scores, selections);
  const Tensor sums = Matrix(sums_, static_cast<int64_t>(layers.size()), scores.dim(1));
  ClearTensor(context, sums);
  AddHeads(context, scores, sums);
  CAIRN_RETURN_IF_ERROR(sync_.SumScores(sums));
  return Select(context, sums, selections);
}

Tensor Compressor::ZeroSums(Context& context, int32_t num_slots) {
  const Tensor sums = sums_.Rows(0, num_slots - config_.window);
  ClearTensor(context, sums);
  return sums;
}

void Compressor::AddScores(Context& context, absl::Span<const LayerTask> layers, const Tensor& sums) {
  AddHeads(context, Score(context, layers), sums.Reshape({1, sums.dim(0)}));
}

// A KV head counts once, however many ranks hold it.
void Compressor::AddHeads(Context& context, const Tensor& scores, const Tensor& sums) {
  if (shape_.heads.replica_index == 0) ScoresToFixedPoint(context, scores, /*accumulate=*/true, sums);
}

absl::StatusOr<KeepPlan> Compressor::SelectFrom(Context& context, const Tensor& sums, int32_t num_slots,
                                                int32_t budget) {
  CAIRN_RETURN_IF_ERROR(sync_.SumScores(sums));
  return Select(context, sums.Reshape({1, sums.dim(0)}), {SelectionOf(num_slots, budget)});
}

}  // namespace cairn
