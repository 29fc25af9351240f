// Sums and maxima over a warp or a block; every thread gets the result. The order of the sums is fixed.
#ifndef CAIRN_KERNELS_CUDA_REDUCE_H_
#define CAIRN_KERNELS_CUDA_REDUCE_H_

#include "kernels/cuda/launch.h"

namespace cairn::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

// Of a block of kThreads (a multiple of 32). Each once per kernel: a second call would need a barrier before it.
template <int kThreads>
__device__ __forceinline__ float BlockMax(float value) {
  CAIRN_SHARED(float, partial, [kThreads / kWarpSize]);
  value = WarpMax(value);
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float max = partial[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarpSize; ++warp) max = fmaxf(max, partial[warp]);
  return max;
}

template <int kThreads>
__device__ __forceinline__ float BlockSum(float value) {
  CAIRN_SHARED(float, partial, [kThreads / kWarpSize]);
  value = WarpSum(value);
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarpSize; ++warp) total += partial[warp];
  return total;
}

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_REDUCE_H_
