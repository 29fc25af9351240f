#include "parallel/shard/parallel_linear.h"

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/elementwise.h"

namespace cairn {
namespace {

Tensor BiasOf(const std::vector<float>& bias, const PackedMatrix& weight) {
  CAIRN_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == weight.rows(), bias.size(), " biases for ",
              weight.rows(), " outputs");
  if (bias.empty()) return {};
  return Tensor(const_cast<float*>(bias.data()), DType::kFloat32, {weight.rows()});
}

}  // namespace

void ColumnParallelLinear::Forward(Context& context, const Tensor& x, const Tensor& y) const {
  MatMul(context, x, weight, y, {.bias = BiasOf(bias, weight)});
}

absl::Status RowParallelLinear::Forward(Context& context, Communicator& tp, const Tensor& x, const Tensor& y) const {
  if (tp.size() == 1) {
    MatMul(context, x, weight, y, {.bias = BiasOf(bias, weight)});
    return absl::OkStatus();
  }
  // Rank 0's partial sum carries the bias, so that it is in the total once and rounded with it.
  MatMul(context, x, weight, y, {.bias = tp.rank() == 0 ? BiasOf(bias, weight) : Tensor(), .round_output = false});
  CAIRN_RETURN_IF_ERROR(tp.AllReduce(y, ReduceOp::kSum));
  RoundToActivation(context, y);
  return absl::OkStatus();
}

}  // namespace cairn
