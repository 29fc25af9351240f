// The decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3), or the layers of it that one pipeline stage holds:
// RMSNorm, rotary attention with grouped KV heads, SwiGLU, residuals (arXiv 2302.13971, 2310.06825, 2407.10671,
// 2505.09388).
#ifndef CAIRN_ENGINE_MODEL_TRANSFORMER_H_
#define CAIRN_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/cache/kv_cache.h"
#include "engine/model/model_config.h"
#include "engine/model/workspace.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/weight_vector.h"
#include "kernels/ops/decode_graphs.h"
#include "kernels/ops/matmul.h"
#include "parallel/comm/communicator.h"
#include "parallel/shard/parallel_linear.h"
#include "parallel/shard/shard.h"

namespace cairn {

struct AttentionWeights {
  WeightVector norm;            // [hidden] f32, as all norms
  ColumnParallelLinear qkv;     // [(q + 2 kv heads) * head_dim, hidden]
  WeightVector q_norm, k_norm;  // [head_dim], Qwen3; else empty
  RowParallelLinear o;          // [hidden, q heads * head_dim]
};

struct MlpWeights {
  WeightVector norm;             // [hidden]
  ColumnParallelLinear gate_up;  // [2 * intermediate, hidden], the gate first
  RowParallelLinear down;        // [hidden, intermediate]
};

struct LayerWeights {
  AttentionWeights attention;
  MlpWeights mlp;
};

// What a stage holds, sharded for its tp rank.
struct StageWeights {
  Range layers;  // global indices
  HeadShard heads;
  Range vocab;                              // rows of embedding and head on this rank
  std::shared_ptr<PackedMatrix> embedding;  // first stage
  std::shared_ptr<PackedMatrix> head;       // last stage; the same object as `embedding` where both are here and tied
  WeightVector final_norm;                  // last stage
  WeightVector inverse_frequencies;         // [head_dim / 2] f32, of the rotary embedding
  std::vector<LayerWeights> layer;

  int64_t size_bytes() const;
};

// The rows of one step: which tokens, where, and whose.
struct StepRows {
  Tensor ids;                           // [T] int32
  Tensor positions;                     // [T] int32
  std::vector<SequenceRows> sequences;  // `kv` is filled per layer
  std::vector<int> cache_handles;       // of each sequence, for KvCache::View
  std::vector<float*> query_rings;      // of each sequence, filled per layer where the cache has them
  // Where the step is recorded or replayed: `sequences` are the recording's and stay as they are.
  DecodeGraphs* graphs = nullptr;
};

class Transformer {
 public:
  Transformer(const ModelConfig& config, StageWeights weights);

  // hidden [T, C] on every rank of the tp group. First stage only.
  absl::Status Embed(Context& context, Communicator& tp, const Tensor& ids, const Tensor& hidden) const;
  // This stage's layers, in place. The cache already has room for the rows.
  absl::Status Layers(Context& context, Communicator& tp, StepRows& rows, const KvCache& cache, Workspace& workspace,
                      const Tensor& hidden) const;
  // This rank's part of the logits of hidden's rows [M, C] (changed in place): [M, its tokens] f32, in the workspace's
  // scratch or, where tp is 1, in `logits` (VocabShardLogits). Last stage only.
  Tensor ShardLogits(Context& context, const Communicator& tp, Workspace& workspace, const Tensor& hidden,
                     const Tensor& logits) const;

  const ModelConfig& config() const { return config_; }
  const StageWeights& weights() const { return weights_; }

 private:
  static void UseCacheLayer(StepRows& rows, const KvCache& cache, int layer);
  // A sublayer's output for `normed`, to be added to the residual stream.
  absl::StatusOr<Tensor> Attention(Context& context, Communicator& tp, size_t layer, StepRows& rows,
                                   const KvCache& cache, Workspace& workspace, const Tensor& normed) const;
  absl::StatusOr<Tensor> Mlp(Context& context, Communicator& tp, const MlpWeights& weights, Workspace& workspace,
                             const Tensor& normed) const;

  ModelConfig config_;
  StageWeights weights_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_MODEL_TRANSFORMER_H_
