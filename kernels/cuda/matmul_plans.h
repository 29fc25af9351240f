// Matrix products through cuBLASLt: for each shape the algorithm is asked for once and kept.
#ifndef CAIRN_KERNELS_CUDA_MATMUL_PLANS_H_
#define CAIRN_KERNELS_CUDA_MATMUL_PLANS_H_

#include <driver_types.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/core/dtype.h"

namespace cairn::cuda {

// y = x w^T (+ bias): x [m, k], w [n, k], y [m, n], all row-major, rows `*_stride` elements apart. x and w hold
// `input`, y and bias [n] hold `output`: the same type or float32. Sums are float32. With E4M3 inputs each row of x and
// of w may have a scale, by which the sums are multiplied before the bias.
struct MatMulProblem {
  int64_t m, n, k;
  int64_t x_stride, w_stride, y_stride;
  DType input, output;
  const void* x;
  const void* w;
  const void* bias;  // or null
  void* y;
  const float* x_scales = nullptr;  // [m], on the device; or neither
  const float* w_scales = nullptr;  // [n]
};

class MatMulPlans {
 public:
  static absl::StatusOr<std::unique_ptr<MatMulPlans>> Create(int device);
  virtual ~MatMulPlans() = default;

  // Does the library have an algorithm for it? (Of E4M3 it takes multiples of 16; scales of rows on sm_90 alone; a
  // bias only with a 16-bit output.)
  virtual bool Takes(const MatMulProblem& problem) = 0;
  virtual void Run(const MatMulProblem& problem, cudaStream_t stream) = 0;
};

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_MATMUL_PLANS_H_
