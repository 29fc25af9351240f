// E4M3, the 8-bit float of weights and of what multiplies them (Micikevicius et al., "FP8 formats for deep learning",
// arXiv 2209.05433): 4 bits of exponent (bias 7), 3 of mantissa, subnormal numbers down to 2^-9, no infinity, NaN at
// 0x7f. And the scaling of rows, one definition for every device:
//
//   scale of a row = m / 448,   code = E4M3(x * (448 / m)),   m = max(max |x|, 2^-60), NaN left out
//
// in float32, so that x is about code * scale. A NaN stays NaN; a row with an infinity becomes NaN. Keys and values of
// a KV cache have no scale.
#ifndef CAIRN_KERNELS_CORE_FLOAT8_H_
#define CAIRN_KERNELS_CORE_FLOAT8_H_

#include <bit>
#include <cmath>
#include <cstdint>

namespace cairn {

inline constexpr float kMaxFloat8 = 448;               // the largest number
inline constexpr float kLeastQuantizedRow = 0x1p-60f;  // of a row's largest magnitude, so that no scale is zero

// The nearest E4M3 number, ties to even; beyond the largest, that one. Without branches, which compilers vectorise.
inline float RoundToFloat8E4M3(float value) {
  const float above = value < -kMaxFloat8 ? -kMaxFloat8 : value;
  const float clamped = above > kMaxFloat8 ? kMaxFloat8 : above;
  // A number so large that the sum with it has 3 bits left behind the value's first one (or the last of 2^-9).
  const float binade = std::bit_cast<float>(std::bit_cast<uint32_t>(clamped) & 0x7f800000u);
  const float rounder = (binade < 0x1p-6f ? 0x1p-6f : binade) * 0x1.8p20f;
  return std::copysign((clamped + rounder) - rounder, clamped);
}

inline uint8_t FloatToFloat8E4M3(float value) {
  if (std::isnan(value)) return 0x7f;
  const uint32_t bits = std::bit_cast<uint32_t>(RoundToFloat8E4M3(value));
  const uint8_t sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x3c800000) {  // below 2^-6: in units of 2^-9
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::bit_cast<float>(magnitude) * 0x1p9f));
  }
  return static_cast<uint8_t>(sign | (magnitude - 0x3c000000) >> 20);
}

inline float Float8E4M3ToFloat(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, magnitude = code & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + 0x3c000000));
  const float value = static_cast<float>(magnitude) * 0x1p-9f;
  return sign != 0 ? -value : value;
}

struct Float8Scale {
  float inverse;  // x to code
  float scale;    // code to x
};

inline Float8Scale Float8ScaleFor(float max_magnitude) {
  const float m = max_magnitude > kLeastQuantizedRow ? max_magnitude : kLeastQuantizedRow;
  return {kMaxFloat8 / m, m / kMaxFloat8};
}

// The largest |x|, NaN left out; by integers, whose maximum compilers vectorise.
inline float MaxMagnitude(const float* x, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    const int32_t number = bits > 0x7f800000 ? 0 : bits;
    largest = number > largest ? number : largest;
  }
  return std::bit_cast<float>(largest);
}

// x [n] as it is, without a scale: how a KV cache holds it.
inline void ConvertToFloat8(const float* x, int64_t n, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i) codes[i] = FloatToFloat8E4M3(x[i]);
}

// codes [n]; returns the row's scale.
inline float RowToFloat8(const float* row, int64_t n, uint8_t* codes) {
  const Float8Scale scale = Float8ScaleFor(MaxMagnitude(row, n));
  for (int64_t i = 0; i < n; ++i) codes[i] = FloatToFloat8E4M3(row[i] * scale.inverse);
  return scale.scale;
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_FLOAT8_H_
