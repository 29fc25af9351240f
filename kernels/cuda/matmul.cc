#include "kernels/core/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/float8_matmul.h"

namespace cairn::cuda {

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options) {
  const bool float8 = w.dtype() == DType::kFloat8E4M3;
  CAIRN_CHECK(float8 || w.dtype() == x.dtype(), "MatMul on a GPU: weights hold ", DTypeName(w.dtype()),
              ", activations ", DTypeName(x.dtype()), "; load the weights in the activations' type");
  if (w.cols() == 0) {
    CAIRN_CHECK(options.bias.raw() == nullptr, "MatMul on a GPU: a bias alone");
    return context.cuda().Clear(y.raw(), static_cast<size_t>(y.row_stride()) * DTypeSize(y.dtype()),
                                static_cast<size_t>(w.rows()) * DTypeSize(y.dtype()), static_cast<size_t>(y.dim(0)));
  }
  if (float8) return Float8MatMul(context, x, w, y, options);
  const MatMulProblem problem = {.m = x.dim(0),
                                 .n = w.rows(),
                                 .k = w.cols(),
                                 .x_stride = x.row_stride(),
                                 .w_stride = w.row_stride(),
                                 .y_stride = y.row_stride(),
                                 .input = x.dtype(),
                                 .output = y.dtype(),
                                 .x = x.raw(),
                                 .w = w.data(),
                                 .bias = options.bias.raw(),
                                 .y = y.raw()};
  context.cuda().matmul_plans().Run(problem, context.cuda().stream());
}

}  // namespace cairn::cuda
