// How kernels are launched and name their shared memory. The same .cu files are compiled by nvcc and, for tests without
// a GPU, as C++ against the emulator (tests/emulator); hence the rules that tests/integration/rules_test.sh holds:
// launches through CAIRN_LAUNCH, shared memory through CAIRN_SHARED, CAIRN_SHARED_ALIGNED and CAIRN_DYNAMIC_SHARED,
// inline PTX in kernels/cuda/ptx.h, no cooperative groups, no CUB.
#ifndef CAIRN_KERNELS_CUDA_LAUNCH_H_
#define CAIRN_KERNELS_CUDA_LAUNCH_H_

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#else
#include <cuda_emulator.h>
#endif

#include <cstddef>
#include <utility>

#include "kernels/core/check_cuda.h"

#if defined(__CUDACC__)

// CAIRN_SHARED(float, sums, [2][32]): an array of the block; without the last argument a single value.
#define CAIRN_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define CAIRN_SHARED_ALIGNED(alignment, T, name, ...) \
  __shared__ __align__(alignment)                     \
  T name __VA_ARGS__
// T* name: the shared memory whose size the launch gives, 128-byte aligned.
#define CAIRN_DYNAMIC_SHARED(T, name)                                     \
  extern __shared__ __align__(128) unsigned char cairn_dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(cairn_dynamic_shared_)

#else

#define CAIRN_SHARED(T, name, ...) CAIRN_SHARED_ALIGNED(alignof(T), T, name __VA_OPT__(, ) __VA_ARGS__)
#define CAIRN_SHARED_ALIGNED(alignment, T, name, ...)              \
  static char name##_key_;                                         \
  auto& name = *static_cast<std::type_identity_t<T __VA_ARGS__>*>( \
      ::cuda_emulator::SharedArray(&name##_key_, sizeof(T __VA_ARGS__), (alignment)))
#define CAIRN_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::cuda_emulator::DynamicShared(128))

#endif

namespace cairn::cuda {

// What a block may take without asking.
inline constexpr size_t kDefaultSharedBytes = 48 << 10;

struct LaunchShape {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;  // dynamic
};

template <typename... Parameters, typename... Arguments>
void Launch(const char* name, void (*kernel)(Parameters...), cudaStream_t stream, const LaunchShape& shape,
            Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    CAIRN_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shape.shared_bytes)));
  }
#if !defined(__CUDACC__)
  ::cuda_emulator::NameNextLaunch(name);
#endif
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (error != cudaSuccess) CheckFailed(__FILE__, __LINE__, name, cudaGetErrorString(error));
}

}  // namespace cairn::cuda

// CAIRN_LAUNCH((Kernel<float>), stream, {blocks, threads, shared_bytes}, arguments...)
#define CAIRN_LAUNCH(kernel, stream, ...) ::cairn::cuda::Launch(#kernel, kernel, stream, __VA_ARGS__)

#endif  // CAIRN_KERNELS_CUDA_LAUNCH_H_
