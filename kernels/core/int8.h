// Rows of weights as 8-bit integers and a scale each:
//
//   scale of a row = m / 127,   code = round(w * (127 / m)),   m = max(max |w|, 2^-60)
//
// in float32, half to even, so that w is about code * scale. A row with a NaN or an infinity becomes NaN.
#ifndef CAIRN_KERNELS_CORE_INT8_H_
#define CAIRN_KERNELS_CORE_INT8_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/core/float8.h"

namespace cairn {

inline constexpr float kMaxInt8 = 127;

// codes [n]; returns the row's scale.
inline float RowToInt8(const float* row, int64_t n, int8_t* codes) {
  const float largest = MaxMagnitude(row, n), m = largest > kLeastQuantizedRow ? largest : kLeastQuantizedRow;
  const float inverse = kMaxInt8 / m;
  bool finite = std::isfinite(m);
  for (int64_t i = 0; i < n; ++i) {
    const float rounded = std::nearbyint(row[i] * inverse);
    finite = finite && rounded >= -kMaxInt8 && rounded <= kMaxInt8;  // not of a NaN
    codes[i] = rounded >= -kMaxInt8 && rounded <= kMaxInt8 ? static_cast<int8_t>(rounded) : int8_t{0};
  }
  return finite ? m / kMaxInt8 : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_INT8_H_
