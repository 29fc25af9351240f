// Megatron-style linears (arXiv 1909.08053): a column-parallel one splits the outputs and needs no message, a
// row-parallel one splits the inputs and sums over the tp group. The weights come packed and already sharded
// (engine/weights).
#ifndef CAIRN_PARALLEL_SHARD_PARALLEL_LINEAR_H_
#define CAIRN_PARALLEL_SHARD_PARALLEL_LINEAR_H_

#include "absl/status/statusor.h"
#include "kernels/core/context.h"
#include "kernels/core/weight_vector.h"
#include "kernels/ops/matmul.h"
#include "parallel/comm/communicator.h"

namespace cairn {

// y [T, N / tp] = x [T, K] W_local^T + b_local.
struct ColumnParallelLinear {
  PackedMatrix weight;  // [N / tp, K]
  WeightVector bias;    // [N / tp] activations, or empty

  void Forward(Context& context, const Tensor& x, const Tensor& y) const;
};

// y [T, N] = sum over ranks of x_local [T, K / tp] W_local^T, + b once. Equal bits on every rank; rounded to the
// activation type after the sum (and, as a GPU's matmul would, nowhere before).
struct RowParallelLinear {
  PackedMatrix weight;  // [N, K / tp]
  WeightVector bias;    // [N] or empty: activations where tp is 1, else float32

  // partial [T, N] f32: for the sums over ranks (not used where tp is 1); may be y where activations are float32.
  // Returns y, or `partial` with the sum, not rounded: for an op that rounds what it adds (AddInPlace, AddRmsNorm).
  absl::StatusOr<Tensor> ForwardToAdd(Context& context, Communicator& tp, const Tensor& x, const Tensor& partial,
                                      const Tensor& y) const;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_SHARD_PARALLEL_LINEAR_H_
