// Device memory of one GPU.
#ifndef CAIRN_KERNELS_CORE_BUFFER_CUDA_H_
#define CAIRN_KERNELS_CORE_BUFFER_CUDA_H_

#include <cstddef>

#include "absl/status/statusor.h"

namespace cairn::cuda {

// RESOURCE_EXHAUSTED names the bytes asked for and those that are free.
absl::StatusOr<void*> AllocateMemory(int device, size_t bytes);
// Waits for the device.
void FreeMemory(int device, void* memory);
// Page-locked memory of the host. RESOURCE_EXHAUSTED names the bytes asked for.
absl::StatusOr<void*> AllocatePinnedMemory(int device, size_t bytes);
void FreePinnedMemory(void* memory);
// At loading time, on no stream; done on return.
void ClearMemory(int device, void* memory, size_t bytes);
void FillMemory(int device, void* memory, const void* host, size_t bytes);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CORE_BUFFER_CUDA_H_
