#include "parallel/shard/parallel_linear.h"

#include "kernels/core/status_macros.h"
#include "kernels/ops/elementwise.h"

namespace cairn {

void ColumnParallelLinear::Forward(Context& context, const Tensor& x, const Tensor& y) const {
  MatMul(context, x, weight, y, {.bias = bias.tensor()});
}

absl::StatusOr<Tensor> RowParallelLinear::ForwardToAdd(Context& context, Communicator& tp, const Tensor& x,
                                                       const Tensor& partial, const Tensor& y) const {
  if (tp.size() == 1) {
    MatMul(context, x, weight, y, {.bias = bias.tensor()});
    return y;
  }
  // Rank 0's partial sum carries the bias, so that it is in the total once and rounded with it.
  MatMul(context, x, weight, partial, {.bias = tp.rank() == 0 ? bias.tensor() : Tensor(), .round_output = false});
  CAIRN_RETURN_IF_ERROR(tp.AllReduce(partial, ReduceOp::kSum));
  if (y.dtype() != partial.dtype()) return partial;
  RoundToActivation(context, partial, y);
  return y;
}

}  // namespace cairn
