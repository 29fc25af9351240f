#include "kernels/ops/matmul.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options) {
  CheckActivation("MatMul", "x", context, x, 2);
  CheckOperand("MatMul", "y", context, y, options.round_output ? context.storage_dtype() : DType::kFloat32, 2);
  CAIRN_CHECK(w.device() == context.device(), "MatMul: w is on another device");
  CheckDim("MatMul", "x", x, 1, w.cols());
  CheckDim("MatMul", "y", y, 1, w.rows());
  CheckDim("MatMul", "y", y, 0, x.dim(0));
  if (options.bias.raw() != nullptr) {
    CheckOperand("MatMul", "bias", context, options.bias, y.dtype(), 1);
    CheckDim("MatMul", "bias", options.bias, 0, w.rows());
  }
  if (y.num_elements() == 0) return;
  CAIRN_DISPATCH(context, MatMul, x, w, y, options);
}

void ReserveMatMul([[maybe_unused]] Context& context, [[maybe_unused]] const PackedMatrix& w,
                   [[maybe_unused]] int64_t max_rows) {
#if CAIRN_CUDA
  if (!context.device().is_cpu()) cuda::ReserveMatMul(context, w, max_rows);
#endif
}

void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y) {
  CheckOperand("Embedding", "ids", context, ids, DType::kInt32, 1);
  CheckActivation("Embedding", "y", context, y, 2);
  CAIRN_CHECK(table.device() == context.device(), "Embedding: the table is on another device");
  CAIRN_CHECK(table.scales() == nullptr, "Embedding: a table in ", DTypeName(table.dtype()));
  CAIRN_CHECK(ids.is_contiguous(), "Embedding: ids must be contiguous");
  CheckDim("Embedding", "y", y, 0, ids.dim(0));
  CheckDim("Embedding", "y", y, 1, table.cols());
  if (y.num_elements() == 0) return;
  CAIRN_DISPATCH(context, Embedding, ids, table, row_begin, y);
}

}  // namespace cairn
