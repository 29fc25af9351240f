// Scores as integers that can be summed in any order (COMPRESSION section 8).
#ifndef CAIRN_KERNELS_CPU_FIXED_POINT_H_
#define CAIRN_KERNELS_CPU_FIXED_POINT_H_

#include <cmath>
#include <cstdint>

namespace cairn::cpu {

inline constexpr double kFixedPointOne = 0x1p40;
inline constexpr int64_t kFixedPointMax = int64_t{1} << 47;

// round-half-even(score * 2^40), saturated at +-2^47; NaN is -2^47.
inline int64_t ToFixedPoint(float score) {
  const double scaled = static_cast<double>(score) * kFixedPointOne;
  if (!(scaled > -static_cast<double>(kFixedPointMax))) return -kFixedPointMax;
  if (scaled >= static_cast<double>(kFixedPointMax)) return kFixedPointMax;
  return static_cast<int64_t>(std::nearbyint(scaled));
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_FIXED_POINT_H_
