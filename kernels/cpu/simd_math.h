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

// e^x for x <= 88.8 or NaN: within 0.9 ulp on [-87.3, 88.3] (measured over its float32 numbers); zero below -87.7,
// infinite above 88.38, NaN for NaN. x = n ln 2 + r with |r| <= ln(2) / 2 (ln 2 in two parts, so that r is good to the
// last bit); e^r by a minimax polynomial of degree 6; 2^n by its exponent bits.
CAIRN_SIMD F32x16 ExpBelow89(F32x16 x) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits; 127 more makes them 2^n's exponent field.
  const F32x16 magic = Set(12582912.0f + 127.0f);
  x = Max(Set(-88.0f), x);
  const F32x16 shifted = Fma(x, Set(1.44269504f), magic);
  const F32x16 n = Sub(shifted, magic);
  F32x16 r = Fma(n, Set(-0.693145752f), x);
  r = Fma(n, Set(-1.42860677e-6f), r);
  F32x16 p = Set(0.00138145406f);
  p = Fma(p, r, Set(0.00836874545f));
  p = Fma(p, r, Set(0.041668389f));
  p = Fma(p, r, Set(0.166665211f));
  p = Fma(p, r, Set(0.49999994f));
  p = Fma(p, r, Set(1.0f));
  p = Fma(p, r, Set(1.0f));
  return Mul(p, ShiftLeft23(shifted));
}

CAIRN_SIMD float ExpOf(float x) { return First(ExpBelow89(Set(x))); }

// As above, for any x.
CAIRN_SIMD F32x16 Exp(F32x16 x) { return ExpBelow89(Min(Set(88.8f), x)); }

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SIMD_MATH_H_
