// The rotation of a pair of dimensions, for the op alone and for the one that appends besides: the same bits in both.
#ifndef CAIRN_KERNELS_CUDA_ROPE_H_
#define CAIRN_KERNELS_CUDA_ROPE_H_

#include <cstdint>

#include "kernels/cuda/storage.h"

namespace cairn::cuda {

struct Rotation {
  float cosine, sine;
};

__device__ __forceinline__ Rotation RotationOf(int32_t position, float inv_freq, float attention_scale) {
  const float angle = static_cast<float>(position) * inv_freq;
  return {cosf(angle) * attention_scale, sinf(angle) * attention_scale};
}

template <typename T>
struct RotatedPair {
  T low, high;
};

// What is fused is written as such, so that no compiler decides it anew in each kernel.
template <typename T>
__device__ __forceinline__ RotatedPair<T> Rotate(T low, T high, const Rotation& r) {
  const float a = ToFloat(low), b = ToFloat(high);
  return {FromFloat<T>(__fmaf_rn(a, r.cosine, -(b * r.sine))), FromFloat<T>(__fmaf_rn(b, r.cosine, a * r.sine))};
}

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_ROPE_H_
