#include "kernels/core/buffer_cuda.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "kernels/core/check_cuda.h"

namespace cairn::cuda {

absl::StatusOr<void*> AllocateMemory(int device, size_t bytes) {
  CAIRN_CUDA_CHECK(cudaSetDevice(device));
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaSuccess) return memory;
  cudaGetLastError();  // an error of this call alone
  size_t free_bytes = 0, total_bytes = 0;
  if (error != cudaErrorMemoryAllocation || cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) {
    return absl::InternalError(
        absl::StrCat("cannot allocate ", bytes, " bytes on GPU ", device, ": ", cudaGetErrorString(error)));
  }
  return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes on GPU ", device, ": ",
                                                   free_bytes, " of ", total_bytes, " bytes are free"));
}

void FreeMemory(int device, void* memory) {
  CAIRN_CUDA_CHECK(cudaSetDevice(device));
  CAIRN_CUDA_CHECK(cudaFree(memory));
}

absl::StatusOr<void*> AllocatePinnedMemory(int device, size_t bytes) {
  CAIRN_CUDA_CHECK(cudaSetDevice(device));
  void* memory = nullptr;
  const cudaError_t error = cudaMallocHost(&memory, bytes);
  if (error == cudaSuccess) return memory;
  cudaGetLastError();  // an error of this call alone
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot pin ", bytes, " bytes of host memory: ", cudaGetErrorString(error)));
}

void FreePinnedMemory(void* memory) { CAIRN_CUDA_CHECK(cudaFreeHost(memory)); }

void ClearMemory(int device, void* memory, size_t bytes) {
  CAIRN_CUDA_CHECK(cudaSetDevice(device));
  CAIRN_CUDA_CHECK(cudaMemset(memory, 0, bytes));
  CAIRN_CUDA_CHECK(cudaStreamSynchronize(nullptr));  // a cudaMemset may return before it is done
}

void FillMemory(int device, void* memory, const void* host, size_t bytes) {
  CAIRN_CUDA_CHECK(cudaSetDevice(device));
  CAIRN_CUDA_CHECK(cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice));
  CAIRN_CUDA_CHECK(cudaStreamSynchronize(nullptr));  // a copy of pageable memory may return before it has landed
}

}  // namespace cairn::cuda
