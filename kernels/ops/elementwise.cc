#include "kernels/ops/elementwise.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {
namespace {

// What is added to activations: such, or a sum that has not been rounded to them yet.
void CheckUpdate(const char* op, const char* name, const Context& context, const Tensor& update) {
  const DType dtype = update.dtype() == DType::kFloat32 ? DType::kFloat32 : context.storage_dtype();
  CheckOperand(op, name, context, update, dtype, 2);
}

}  // namespace

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const int last = x.rank() - 1;
  CAIRN_CHECK(last == 1 || last == 2, "RmsNorm: x has rank ", x.rank(), ", expected 2 or 3");
  CheckActivation("RmsNorm", "x", context, x, x.rank());
  CheckOperand("RmsNorm", "weight", context, weight, DType::kFloat32, 1);
  CheckActivation("RmsNorm", "y", context, y, x.rank());
  CheckDim("RmsNorm", "weight", weight, 0, x.dim(last));
  for (int dim = 0; dim <= last; ++dim) CheckDim("RmsNorm", "y", y, dim, x.dim(dim));
  if (y.num_elements() == 0) return;
  CAIRN_DISPATCH(context, RmsNorm, x, weight, eps, y);
}

void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed) {
  CheckActivation("AddRmsNorm", "hidden", context, hidden, 2);
  CheckUpdate("AddRmsNorm", "update", context, update);
  CheckOperand("AddRmsNorm", "weight", context, weight, DType::kFloat32, 1);
  CheckActivation("AddRmsNorm", "normed", context, normed, 2);
  CheckDim("AddRmsNorm", "weight", weight, 0, hidden.dim(1));
  for (int dim : {0, 1}) {
    CheckDim("AddRmsNorm", "update", update, dim, hidden.dim(dim));
    CheckDim("AddRmsNorm", "normed", normed, dim, hidden.dim(dim));
  }
  if (hidden.num_elements() == 0) return;
  CAIRN_DISPATCH(context, AddRmsNorm, hidden, update, weight, eps, normed);
}

void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale) {
  CheckActivation("Rope", "x", context, x, 3);
  CheckOperand("Rope", "positions", context, positions, DType::kInt32, 1);
  CheckOperand("Rope", "inv_freq", context, inv_freq, DType::kFloat32, 1);
  CAIRN_CHECK(positions.is_contiguous() && inv_freq.is_contiguous(), "Rope: positions and inv_freq must be contiguous");
  CheckDim("Rope", "positions", positions, 0, x.dim(0));
  CAIRN_CHECK(x.dim(2) == 2 * inv_freq.dim(0), "Rope: head_dim ", x.dim(2), " with ", inv_freq.dim(0), " frequencies");
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, Rope, x, positions, inv_freq, attention_scale);
}

void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y) {
  CheckActivation("SwiGlu", "gate_up", context, gate_up, 2);
  CheckActivation("SwiGlu", "y", context, y, 2);
  CheckDim("SwiGlu", "gate_up", gate_up, 0, y.dim(0));
  CheckDim("SwiGlu", "gate_up", gate_up, 1, 2 * y.dim(1));
  if (y.num_elements() == 0) return;
  CAIRN_DISPATCH(context, SwiGlu, gate_up, y);
}

void AddInPlace(Context& context, const Tensor& x, const Tensor& y) {
  CheckActivation("AddInPlace", "x", context, x, 2);
  CheckUpdate("AddInPlace", "y", context, y);
  CheckDim("AddInPlace", "y", y, 0, x.dim(0));
  CheckDim("AddInPlace", "y", y, 1, x.dim(1));
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, AddInPlace, x, y);
}

void RoundToActivation(Context& context, const Tensor& x, const Tensor& y) {
  CheckOperand("RoundToActivation", "x", context, x, DType::kFloat32, 2);
  CheckActivation("RoundToActivation", "y", context, y, 2);
  for (int dim = 0; dim < 2; ++dim) CheckDim("RoundToActivation", "y", y, dim, x.dim(dim));
  if (x.num_elements() == 0) return;
  if (context.activation_dtype() == DType::kFloat32 && x.raw() == y.raw()) return;
  CAIRN_DISPATCH(context, RoundToActivation, x, y);
}

void TakeRows(Context& context, const Tensor& x, absl::Span<const int32_t> rows, const Tensor& y) {
  CheckActivation("TakeRows", "x", context, x, 2);
  CheckActivation("TakeRows", "y", context, y, 2);
  CheckDim("TakeRows", "y", y, 0, static_cast<int64_t>(rows.size()));
  CheckDim("TakeRows", "y", y, 1, x.dim(1));
  for (const int32_t row : rows) CAIRN_CHECK(row >= 0 && row < x.dim(0), "TakeRows: row ", row, " of ", x.dim(0));
  if (y.num_elements() == 0) return;
  CAIRN_DISPATCH(context, TakeRows, x, rows, y);
}

void ScatterInts(Context& context, absl::Span<const int32_t> indices, absl::Span<const int32_t> values,
                 const Tensor& to) {
  CheckOperand("ScatterInts", "to", context, to, DType::kInt32, 1);
  CAIRN_CHECK(indices.size() == values.size(), "ScatterInts: ", indices.size(), " indices, ", values.size(), " values");
  for (const int32_t i : indices) CAIRN_CHECK(i >= 0 && i < to.dim(0), "ScatterInts: ", i, " of ", to.dim(0));
  if (indices.empty()) return;
  CAIRN_DISPATCH(context, ScatterInts, indices, values, to);
}

}  // namespace cairn
