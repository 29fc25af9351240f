// What the loops need beyond one instruction, written once over F32x16 and so equal on every instruction set. Included
// after simd_avx2.h or simd_avx512.h.
#ifndef CAIRN_KERNELS_CPU_SIMD_MATH_H_
#define CAIRN_KERNELS_CPU_SIMD_MATH_H_

#include "kernels/cpu/kernels.h"

namespace cairn::cpu {
namespace {

CAIRN_SIMD F32x16 RoundTo(Format format, F32x16 a) {
  if (format == Format::kBf16) return AsF32(RoundBf16(a));
  if (format == Format::kF16) return RoundF16(a);
  return a;
}

// Lanes [0, n) of p, n <= 16.
CAIRN_SIMD F32x16 LoadUpTo(const float* p, int64_t n) { return n >= kLanes ? Load(p) : LoadFirst(p, n); }
CAIRN_SIMD void StoreUpTo(float* p, int64_t n, F32x16 a) {
  if (n >= kLanes) {
    Store(p, a);
  } else {
    StoreFirst(p, n, a);
  }
}

// e^x within 1.1 ulp on [-87.3, 88.3] (tested over every float32 there). Zero below, saturated above, NaN for NaN.
// x = n ln 2 + r with |r| <= ln(2) / 2; e^r by the polynomial of Cephes' expf (Moshier 1992).
CAIRN_SIMD F32x16 Exp(F32x16 x) {
  const F32x16 lowest = Set(-87.3f);
  const F32x16 clamped = Min(Set(88.3f), Max(lowest, x));
  const F32x16 n = RoundToInteger(Mul(clamped, Set(1.44269504088896341f)));
  // ln 2 in two parts; n times the first is exact.
  F32x16 r = Fma(n, Set(-0.693359375f), clamped);
  r = Fma(n, Set(2.12194440e-4f), r);
  F32x16 p = Set(1.9875691500e-4f);
  p = Fma(p, r, Set(1.3981999507e-3f));
  p = Fma(p, r, Set(8.3334519073e-3f));
  p = Fma(p, r, Set(4.1665795894e-2f));
  p = Fma(p, r, Set(1.6666665459e-1f));
  p = Fma(p, r, Set(5.0000001201e-1f));
  p = Add(Fma(p, Mul(r, r), r), Set(1.0f));
  return ZeroWhereLess(ScaleByPowerOfTwo(p, n), x, lowest);
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SIMD_MATH_H_
