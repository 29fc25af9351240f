// Scores as integers that can be summed in any order (COMPRESSION section 8).
#ifndef CAIRN_KERNELS_CPU_FIXED_POINT_H_
#define CAIRN_KERNELS_CPU_FIXED_POINT_H_

#include <algorithm>
#include <bit>
#include <cstdint>

namespace cairn::cpu {

inline constexpr double kFixedPointOne = 0x1p40;
inline constexpr int64_t kFixedPointMax = int64_t{1} << 47;

// round-half-even(score * 2^40), saturated at +-2^47; NaN is -2^47.
inline int64_t ToFixedPoint(float score) {
  constexpr double kLimit = static_cast<double>(kFixedPointMax);
  double scaled = static_cast<double>(score) * kFixedPointOne;
  scaled = scaled > -kLimit ? std::min(scaled, kLimit) : -kLimit;
  // 1.5 * 2^52 more leaves no room for a fraction: the sum is rounded (half to even), and its bits count in ones.
  constexpr double kRounder = 0x1.8p52;
  return std::bit_cast<int64_t>(scaled + kRounder) - std::bit_cast<int64_t>(kRounder);
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_FIXED_POINT_H_
