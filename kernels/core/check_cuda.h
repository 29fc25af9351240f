// CHECK for calls of the CUDA runtime. A failed kernel or a lost device leaves nothing to go on with; what can fail for
// the world's reasons (memory, a missing device) returns a Status instead.
#ifndef CAIRN_KERNELS_CORE_CHECK_CUDA_H_
#define CAIRN_KERNELS_CORE_CHECK_CUDA_H_

#include <cuda_runtime_api.h>

#include "kernels/core/check.h"

#define CAIRN_CUDA_CHECK(call)                                                           \
  do {                                                                                   \
    if (const cudaError_t cairn_error_ = (call); cairn_error_ != cudaSuccess) {          \
      ::cairn::CheckFailed(__FILE__, __LINE__, #call, cudaGetErrorString(cairn_error_)); \
    }                                                                                    \
  } while (false)

#endif  // CAIRN_KERNELS_CORE_CHECK_CUDA_H_
