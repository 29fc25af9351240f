// The product with weights in E4M3 (kernels/ops/matmul.h).
#ifndef CAIRN_KERNELS_CUDA_FLOAT8_MATMUL_H_
#define CAIRN_KERNELS_CUDA_FLOAT8_MATMUL_H_

#include "kernels/ops/matmul.h"

namespace cairn::cuda {

void Float8MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y,
                  const MatMulOptions& options);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_FLOAT8_MATMUL_H_
