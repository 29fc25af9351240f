// The functions of cuBLASLt, found when the first GPU is used: the library has half a gigabyte, which runs on CPUs need
// neither have nor load.
#ifndef CAIRN_KERNELS_CUDA_CUBLASLT_H_
#define CAIRN_KERNELS_CUDA_CUBLASLT_H_

#include <cublasLt.h>

#include "absl/status/statusor.h"

namespace cairn::cuda {

#define CAIRN_CUBLASLT_FUNCTIONS(X) \
  X(Create)                         \
  X(Destroy)                        \
  X(GetStatusString)                \
  X(MatmulDescCreate)               \
  X(MatmulDescDestroy)              \
  X(MatmulDescSetAttribute)         \
  X(MatrixLayoutCreate)             \
  X(MatrixLayoutDestroy)            \
  X(MatmulPreferenceCreate)         \
  X(MatmulPreferenceDestroy)        \
  X(MatmulPreferenceSetAttribute)   \
  X(MatmulAlgoGetHeuristic)         \
  X(Matmul)

struct CublasLt {
#define CAIRN_MEMBER_(name) decltype(&cublasLt##name) name = nullptr;
  CAIRN_CUBLASLT_FUNCTIONS(CAIRN_MEMBER_)
#undef CAIRN_MEMBER_

  // NOT_FOUND says which library and why it could not be loaded.
  static absl::StatusOr<const CublasLt*> Load();
};

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_CUBLASLT_H_
