// Scores as integers that can be summed in any order (COMPRESSION section 8): the same numbers as
// kernels/cpu/fixed_point.h.
#ifndef CAIRN_KERNELS_CUDA_FIXED_POINT_H_
#define CAIRN_KERNELS_CUDA_FIXED_POINT_H_

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace cairn::cuda {

inline constexpr double kFixedPointOne = 0x1p40;

// round-half-even(score * 2^40), saturated at +-2^47; NaN is -2^47.
__device__ __forceinline__ int64_t ToFixedPoint(float score) {
  constexpr double kLimit = 0x1p47, kRounder = 0x1.8p52;
  double scaled = static_cast<double>(score) * kFixedPointOne;
  scaled = scaled > -kLimit ? min(scaled, kLimit) : -kLimit;  // NaN too
  // So much more leaves no room for a fraction: the sum is rounded, half to even.
  return static_cast<int64_t>((scaled + kRounder) - kRounder);
}

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_FIXED_POINT_H_
