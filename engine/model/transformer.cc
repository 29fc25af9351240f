#include "engine/model/transformer.h"

#include <utility>

#include "kernels/core/status_macros.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/rope_append.h"
#include "parallel/shard/parallel_embedding.h"

namespace cairn {
namespace {

// Where a sublayer's sums over the ranks are made, if there are any.
Tensor PartialRows(const Communicator& tp, const Workspace& workspace, int64_t rows) {
  return tp.size() == 1 ? Tensor() : workspace.partial.Rows(0, rows);
}

}  // namespace

int64_t StageWeights::size_bytes() const {
  size_t bytes = final_norm.size_bytes() + inverse_frequencies.size_bytes();
  if (embedding != nullptr) bytes += embedding->size_bytes();
  if (head != nullptr && head != embedding) bytes += head->size_bytes();
  for (const LayerWeights& l : layer) {
    bytes += l.attention.qkv.weight.size_bytes() + l.attention.o.weight.size_bytes() +
             l.mlp.gate_up.weight.size_bytes() + l.mlp.down.weight.size_bytes();
    for (const auto* values : {&l.attention.norm, &l.attention.qkv.bias, &l.attention.q_norm, &l.attention.k_norm,
                               &l.attention.o.bias, &l.mlp.norm, &l.mlp.gate_up.bias, &l.mlp.down.bias}) {
      bytes += values->size_bytes();
    }
  }
  return static_cast<int64_t>(bytes);
}

Transformer::Transformer(const ModelConfig& config, StageWeights weights)
    : config_(config), weights_(std::move(weights)) {}

absl::Status Transformer::Embed(Context& context, Communicator& tp, const Tensor& ids, const Tensor& hidden) const {
  return VocabParallelEmbed(context, tp, *weights_.embedding, weights_.vocab, ids, hidden);
}

absl::Status Transformer::Layers(Context& context, Communicator& tp, StepRows& rows, const KvCache& cache,
                                 Workspace& workspace, const Tensor& hidden) const {
  const Tensor normed = workspace.normed.Rows(0, hidden.dim(0));
  const float eps = config_.rms_norm_eps;
  rows.query_rings.resize(cache.has_rings() ? rows.sequences.size() : 0);
  RmsNorm(context, hidden, weights_.layer[0].attention.norm.tensor(), eps, normed);
  for (size_t l = 0; l < weights_.layer.size(); ++l) {
    const LayerWeights& weights = weights_.layer[l];
    // The residual adds stand with the norms that follow them, as one op.
    CAIRN_ASSIGN_OR_RETURN(const Tensor attended, Attention(context, tp, l, rows, cache, workspace, normed));
    AddRmsNorm(context, hidden, attended, weights.mlp.norm.tensor(), eps, normed);
    CAIRN_ASSIGN_OR_RETURN(const Tensor update, Mlp(context, tp, weights.mlp, workspace, normed));
    if (l + 1 < weights_.layer.size()) {
      AddRmsNorm(context, hidden, update, weights_.layer[l + 1].attention.norm.tensor(), eps, normed);
    } else {
      AddInPlace(context, hidden, update);
    }
  }
  return absl::OkStatus();
}

// The step's rows in one layer of the cache.
void Transformer::UseCacheLayer(StepRows& rows, const KvCache& cache, int layer) {
  if (rows.graphs != nullptr) return rows.graphs->UseLayer(layer);
  for (size_t i = 0; i < rows.sequences.size(); ++i) {
    rows.sequences[i].kv = cache.View(rows.cache_handles[i], layer);
    if (cache.has_rings()) rows.query_rings[i] = cache.QueryRing(rows.cache_handles[i], layer);
  }
}

absl::StatusOr<Tensor> Transformer::Attention(Context& context, Communicator& tp, size_t layer, StepRows& rows,
                                              const KvCache& cache, Workspace& workspace, const Tensor& normed) const {
  const AttentionWeights& weights = weights_.layer[layer].attention;
  const int64_t T = normed.dim(0), d = config_.head_dim;
  const int64_t q_heads = weights_.heads.query_heads.size(), kv_heads = weights_.heads.kv_heads.size();
  const Tensor qkv = workspace.qkv.Rows(0, T);
  const Tensor q = qkv.Columns(0, q_heads * d).SplitRows(q_heads, d);
  const Tensor k = qkv.Columns(q_heads * d, (q_heads + kv_heads) * d).SplitRows(kv_heads, d);
  const Tensor attended = workspace.attention.Rows(0, T);
  const Tensor output = workspace.output.Rows(0, T), partial = PartialRows(tp, workspace, T);

  weights.qkv.Forward(context, normed, qkv);
  if (config_.qk_norm) {
    RmsNorm(context, q, weights.q_norm.tensor(), config_.rms_norm_eps, q);
    RmsNorm(context, k, weights.k_norm.tensor(), config_.rms_norm_eps, k);
  }
  // All heads at once, or where they have slots of their own one KV head after the other.
  const int64_t parts = cache.num_layers() / static_cast<int64_t>(weights_.layer.size());
  const int64_t q_part = q_heads / parts, kv_part = kv_heads / parts;
  for (int64_t part = 0; part < parts; ++part) {
    UseCacheLayer(rows, cache, static_cast<int>(static_cast<int64_t>(layer) * parts + part));
    const Range queries = {part * q_part * d, (part + 1) * q_part * d};
    const Range keys = {(q_heads + part * kv_part) * d, (q_heads + (part + 1) * kv_part) * d};
    const Tensor own = qkv.Columns(queries.begin, queries.end).SplitRows(q_part, d);
    RopeAppend(context, own, qkv.Columns(keys.begin, keys.end).SplitRows(kv_part, d),
               qkv.Columns(keys.begin + kv_heads * d, keys.end + kv_heads * d).SplitRows(kv_part, d), rows.positions,
               weights_.inverse_frequencies.tensor(), rows.sequences, {rows.query_rings, cache.ring_layout().window});
    PagedAttention(context, own, rows.positions, rows.sequences, static_cast<int>(config_.sliding_window),
                   attended.Columns(queries.begin, queries.end).SplitRows(q_part, d));
  }
  return weights.o.ForwardToAdd(context, tp, attended, partial, output);
}

absl::StatusOr<Tensor> Transformer::Mlp(Context& context, Communicator& tp, const MlpWeights& weights,
                                        Workspace& workspace, const Tensor& normed) const {
  const int64_t T = normed.dim(0);
  const Tensor gate_up = workspace.gate_up.Rows(0, T);
  const Tensor activated = workspace.activated.Rows(0, T);
  const Tensor output = workspace.output.Rows(0, T), partial = PartialRows(tp, workspace, T);

  weights.gate_up.Forward(context, normed, gate_up);
  SwiGlu(context, gate_up, activated);
  return weights.down.ForwardToAdd(context, tp, activated, partial, output);
}

Tensor Transformer::ShardLogits(Context& context, const Communicator& tp, Workspace& workspace, const Tensor& hidden,
                                const Tensor& logits) const {
  RmsNorm(context, hidden, weights_.final_norm.tensor(), config_.rms_norm_eps, hidden);
  return VocabShardLogits(context, tp, *weights_.head, config_.vocab_size, hidden, workspace.vocab_scratch, logits);
}

}  // namespace cairn
