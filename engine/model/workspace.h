// The activations of one step, allocated once for the largest step.
#ifndef CAIRN_ENGINE_MODEL_WORKSPACE_H_
#define CAIRN_ENGINE_MODEL_WORKSPACE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/dtype.h"
#include "kernels/core/tensor.h"

namespace cairn {

struct WorkspaceShape {
  int64_t max_tokens = 0;               // rows of a step
  int64_t max_sampled = 0;              // rows that get logits
  DType activations = DType::kFloat32;  // what holds them: Context::storage_dtype
  bool sums_over_ranks = false;         // tp > 1
  int64_t hidden = 0;
  int64_t qkv = 0, attention = 0;  // columns on this rank
  int64_t intermediate = 0;        // columns on this rank
  int64_t vocab = 0;               // 0 on stages without a head
  int64_t vocab_scratch = 0;       // floats, see VocabShardLogits

  int64_t size_bytes() const;  // of the Workspace
};

// Tensors [max, columns] of activations, or of the type that is said; take Rows(0, T) of them.
struct Workspace {
  static absl::StatusOr<Workspace> Create(Device device, const WorkspaceShape& shape);

  Tensor ids, positions;  // [max_tokens] int32
  Tensor hidden;          // the residual stream
  Tensor normed;          // input of a sublayer
  Tensor qkv, attention;
  Tensor gate_up, activated;
  Tensor output;  // of a sublayer, before it is added to the stream
  Tensor
      partial;  // f32, a rank's part of `output`: the same memory where activations are f32; without rows where tp is 1
  Tensor sampled;                // [max_sampled, hidden]: the rows that get logits
  Tensor logits, vocab_scratch;  // f32

  Buffer memory;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_MODEL_WORKSPACE_H_
