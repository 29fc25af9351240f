// A product y = x w^T straight through cuBLASLt, so that its workspace and its algorithms can be varied. (The engine's
// own way is kernels/cuda/matmul_plans.h.)
#ifndef CAIRN_BENCH_GPU_LT_MATMUL_H_
#define CAIRN_BENCH_GPU_LT_MATMUL_H_

#include <cublasLt.h>
#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/cublaslt.h"

namespace cairn::bench {

// Of x and w; y is bf16.
enum class LtType { kBFloat16, kFloat8 };  // E4M3, one scale per tensor, fast accumulation
inline const char* LtTypeName(LtType type) { return type == LtType::kFloat8 ? "fp8" : "bf16"; }
inline int64_t LtTypeSize(LtType type) { return type == LtType::kFloat8 ? 1 : 2; }

class LtLibrary {
 public:
  static absl::StatusOr<std::unique_ptr<LtLibrary>> Create();
  ~LtLibrary() { functions_.Destroy(handle_); }

  const cuda::CublasLt& functions() const { return functions_; }
  cublasLtHandle_t handle() const { return handle_; }

 private:
  LtLibrary(const cuda::CublasLt& functions, cublasLtHandle_t handle) : functions_(functions), handle_(handle) {}

  const cuda::CublasLt& functions_;
  cublasLtHandle_t handle_;
};

class LtMatMul {
 public:
  struct Problem {
    LtType type;
    int64_t m, n, k;  // x [m, k], w [n, k], y [m, n], row-major without gaps
    size_t workspace_bytes;
    const float* scale;  // on the device, of x and of w; fp8 alone
  };

  // Up to `candidates` algorithms, in the order in which the library prefers them; none where it has none.
  LtMatMul(LtLibrary& library, const Problem& problem, int candidates);
  ~LtMatMul();
  LtMatMul(const LtMatMul&) = delete;
  LtMatMul& operator=(const LtMatMul&) = delete;

  int num_algorithms() const { return static_cast<int>(algorithms_.size()); }
  void Run(int algorithm, const void* x, const void* w, void* y, void* workspace, cudaStream_t stream);

 private:
  LtLibrary& library_;
  Problem problem_;
  cublasLtMatmulDesc_t descriptor_ = nullptr;
  cublasLtMatrixLayout_t x_ = nullptr, w_ = nullptr, y_ = nullptr;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace cairn::bench

#endif  // CAIRN_BENCH_GPU_LT_MATMUL_H_
