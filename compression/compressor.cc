#include "compression/compressor.h"

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

void CheckPlan(const KeepPlan& plan, int window) {
  const int64_t K = plan.size();
  CAIRN_CHECK(K <= plan.num_slots, K, " of ", plan.num_slots);
  for (int64_t row = 0; row < plan.kept.dim(0); ++row) {
    const int32_t* kept = plan.kept.data<int32_t>() + row * K;
    CAIRN_CHECK(kept[0] >= 0 && kept[K - 1] == plan.num_slots - 1 && kept[K - window] == plan.num_slots - window,
                "the window is not kept");
    for (int64_t i = 1; i < K; ++i) CAIRN_CHECK(kept[i - 1] < kept[i], "kept slots do not ascend");
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::Create(Context& context, const CompressionConfig& config,
                                                               const CompressorShape& shape, RankSync sync) {
  auto compressor = std::unique_ptr<Compressor>(new Compressor(config, shape, sync));
  CAIRN_RETURN_IF_ERROR(compressor->Allocate(context.device()));
  KvBlockLayout layout;
  layout.kv_heads = static_cast<int>(shape.heads.kv_heads.size());
  layout.head_dim = shape.head_dim;
  const int64_t group = shape.heads.query_heads.size() * shape.heads.kv_replicas / layout.kv_heads;
  ReserveScoreMemory(context, layout, shape.max_slots, config.window * group);
  return compressor;
}

Compressor::Compressor(const CompressionConfig& config, const CompressorShape& shape, RankSync sync)
    : config_(config), scope_(config.keep_scope()), shape_(shape), sync_(sync), scorer_(MakeScorer(config)) {}

absl::Status Compressor::Allocate(Device device) {
  const int64_t w = config_.window, d = shape_.head_dim, kv_heads = shape_.heads.kv_heads.size();
  const int64_t heads = shape_.heads.query_heads.size(), replicas = shape_.heads.kv_replicas;
  const int64_t queries = scorer_->needs_queries() ? w * heads * replicas * d : 0;
  const int64_t gathered =
      scorer_->needs_queries() && sync_.is_replicated() ? sync_.tp_size() * shape_.num_layers * w * heads * d : 0;
  const int64_t sums = scope_ == KeepScope::kHead ? 0 : shape_.max_slots;
  struct Part {
    Tensor* tensor;
    DType dtype;
    int64_t elements;
  };
  const Part parts[] = {{&gathered_, DType::kFloat32, gathered},
                        {&queries_, DType::kFloat32, queries},
                        {&scores_, DType::kFloat32, kv_heads * shape_.max_slots},
                        {&sums_, DType::kInt64, sums},
                        {&kept_, DType::kInt32, kv_heads * shape_.max_slots},
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
  if (queries > 0) queries_ = Tensor(queries_.raw(), DType::kFloat32, {w, heads * replicas, d}, device);
  return absl::OkStatus();
}

absl::Status Compressor::Begin(const float* rings, int64_t logical_length) {
  if (!scorer_->needs_queries()) return absl::OkStatus();
  CAIRN_CHECK(logical_length >= config_.window, "the query ring is not full at ", logical_length, " tokens");
  oldest_ = static_cast<int>(logical_length % config_.window);  // the next query would replace it
  rings_ = rings;
  if (!sync_.is_replicated()) return absl::OkStatus();
  const Tensor mine(const_cast<float*>(rings), DType::kFloat32, {gathered_.dim(1)}, gathered_.device());
  CAIRN_RETURN_IF_ERROR(sync_.GatherQueries(mine, gathered_));
  rings_ = gathered_.data<float>();
  return absl::OkStatus();
}

// scores [kv_heads, n - w] of this rank's heads.
Tensor Compressor::Score(Context& context, int layer, const KvView& kv) {
  const int64_t kv_heads = shape_.heads.kv_heads.size();
  CAIRN_CHECK(kv.num_slots > config_.window && kv.num_slots <= shape_.max_slots, kv.num_slots, " slots, room for ",
              shape_.max_slots);
  ScorerInputs inputs = {.kv = kv,
                         .queries = {},
                         .layer = shape_.first_layer + layer,
                         .first_kv_head = static_cast<int32_t>(shape_.heads.kv_heads.begin)};
  if (scorer_->needs_queries()) {
    const int64_t floats = static_cast<int64_t>(config_.window) * shape_.heads.query_heads.size() * shape_.head_dim;
    std::vector<const float*> rings(shape_.heads.kv_replicas, rings_ + layer * floats);
    if (sync_.is_replicated()) {
      for (int replica = 0; replica < shape_.heads.kv_replicas; ++replica) {
        rings[replica] += sync_.Peer(replica) * gathered_.dim(1);
      }
    }
    WindowQueries(context, rings, oldest_, queries_);
    inputs.queries = queries_;
  }
  const Tensor scores = Matrix(scores_, kv_heads, kv.num_slots - config_.window);
  scorer_->Score(context, inputs, scores);
  return scores;
}

KeepPlan Compressor::Select(Context& context, const Tensor& scores, int32_t num_slots, int32_t budget) {
  CAIRN_CHECK(budget < num_slots && budget > config_.window, "keep ", budget, " of ", num_slots);
  const int64_t rows = scores.dim(0);
  KeepPlan plan = {.kept = Matrix(kept_, rows, budget), .num_slots = num_slots};
  SelectTopK(context, scores, scorer_->num_sinks(), config_.window, plan.kept);
  if (context.device().is_cpu()) CheckPlan(plan, config_.window);
  return plan;
}

std::vector<int64_t> Compressor::Fingerprints(Context& context, const KeepPlan& plan) {
  const Tensor fingerprints = fingerprints_.Rows(0, plan.kept.dim(0));
  FingerprintRows(context, plan.kept, fingerprints);
  std::vector<int64_t> values(static_cast<size_t>(fingerprints.dim(0)));
  CopyToHost(context, fingerprints, values.data());
  return values;
}

Tensor Compressor::PlaceKept(Context& context, absl::Span<const int32_t> kept) {
  const Tensor placed = Matrix(kept_, 1, static_cast<int64_t>(kept.size()));
  CopyFromHost(context, kept.data(), placed);
  return placed;
}

absl::StatusOr<KeepPlan> Compressor::Plan(Context& context, int layer, const KvView& kv, int32_t budget) {
  if (scope_ == KeepScope::kHead) return Select(context, Score(context, layer, kv), kv.num_slots, budget);
  const Tensor sums = ZeroSums(context, kv.num_slots);
  AddScores(context, layer, kv, sums);
  return SelectFrom(context, sums, kv.num_slots, budget);
}

Tensor Compressor::ZeroSums(Context& context, int32_t num_slots) {
  const Tensor sums = sums_.Rows(0, num_slots - config_.window);
  ClearTensor(context, sums);
  return sums;
}

// A KV head counts once, however many ranks hold it.
void Compressor::AddScores(Context& context, int layer, const KvView& kv, const Tensor& sums) {
  const Tensor scores = Score(context, layer, kv);
  if (shape_.heads.replica_index != 0) return;
  for (int64_t head = 0; head < scores.dim(0); ++head) {
    ScoresToFixedPoint(context, scores.Rows(head, head + 1), /*accumulate=*/true, sums.Reshape({1, sums.dim(0)}));
  }
}

absl::StatusOr<KeepPlan> Compressor::SelectFrom(Context& context, const Tensor& sums, int32_t num_slots,
                                                int32_t budget) {
  CAIRN_RETURN_IF_ERROR(sync_.SumScores(sums));
  return Select(context, sums.Reshape({1, sums.dim(0)}), num_slots, budget);
}

}  // namespace cairn
