// A setting such as 2.5 as the fraction that was meant: 5/2 (and 1.1 is 11/10, which no double is).
#ifndef CAIRN_COMPRESSION_DECIMAL_H_
#define CAIRN_COMPRESSION_DECIMAL_H_

#include <cmath>
#include <cstdint>
#include <numeric>

namespace cairn {

struct Fraction {
  int64_t numerator = 0, denominator = 1;  // lowest terms
};

// Settings are taken to six decimals.
inline constexpr int64_t kDecimalUnits = 1000000;

// The nearest multiple of 1e-6; |value| below 9e12.
inline Fraction DecimalFraction(double value) {
  const int64_t units = std::llround(value * static_cast<double>(kDecimalUnits));
  const int64_t common = std::gcd(units, kDecimalUnits);
  return {units / common, kDecimalUnits / common};
}

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_DECIMAL_H_
