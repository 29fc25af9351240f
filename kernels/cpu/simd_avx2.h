// Sixteen float32 lanes as two AVX2 registers. Included by the files compiled with -mavx2 -mfma -mf16c, inside their
// own unnamed namespace; simd_avx512.h has the same functions over one register.
#ifndef CAIRN_KERNELS_CPU_SIMD_AVX2_H_
#define CAIRN_KERNELS_CPU_SIMD_AVX2_H_

#include "kernels/cpu/simd_256.h"

namespace cairn::cpu {
namespace {

constexpr int kLanes = 16;

struct F32x16 {
  __m256 lo, hi;
};
struct U32x16 {
  __m256i lo, hi;
};

CAIRN_SIMD F32x16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
CAIRN_SIMD void Store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
CAIRN_SIMD F32x16 Set(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
CAIRN_SIMD F32x16 Broadcast(const float* p) {
  const __m256 v = _mm256_broadcast_ss(p);
  return {v, v};
}
// Eight lanes, then zeros.
CAIRN_SIMD F32x16 ZeroExtend(__m256 a) { return {a, _mm256_setzero_ps()}; }
CAIRN_SIMD F32x16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
CAIRN_SIMD F32x16 Add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
CAIRN_SIMD F32x16 Sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
CAIRN_SIMD F32x16 Mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
CAIRN_SIMD F32x16 Div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
CAIRN_SIMD F32x16 Sqrt(F32x16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
// a * b + c
CAIRN_SIMD F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// Both return b where a or b is NaN.
CAIRN_SIMD F32x16 Max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
CAIRN_SIMD F32x16 Min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
// The bits of each lane, shifted.
CAIRN_SIMD F32x16 ShiftLeft23(F32x16 a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.lo), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.hi), 23))};
}
CAIRN_SIMD float First(F32x16 a) { return _mm256_cvtss_f32(a.lo); }
// Lane i of a where bit i of the mask is set, else of b.
CAIRN_SIMD F32x16 Where(uint32_t mask, F32x16 a, F32x16 b) {
  const __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(low, 8);
  const __m256i bits = _mm256_set1_epi32(static_cast<int>(mask));
  const auto is_set = [bits](__m256i lane) __attribute__((always_inline)) {
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(bits, lane), lane));
  };
  return {_mm256_blendv_ps(b.lo, a.lo, is_set(low)), _mm256_blendv_ps(b.hi, a.hi, is_set(high))};
}
// Bit i: p[i] >= bound.
CAIRN_SIMD uint32_t MaskAtLeast(const int32_t* p, int32_t bound) {
  const __m256i limit = _mm256_set1_epi32(bound);
  const auto below = [limit](const int32_t* at) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, v))));
  };
  return ~(below(p) | below(p + 8) << 8) & 0xffff;
}

// Bit i: a[i] > b[i]; false where either is NaN.
CAIRN_SIMD uint32_t MaskGreater(F32x16 a, F32x16 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ))) |
         static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))) << 8;
}

// Lanes i and i + 8; SumOf8 goes on.
CAIRN_SIMD __m256 AddHalves(F32x16 a) { return _mm256_add_ps(a.lo, a.hi); }
CAIRN_SIMD float SumOf(F32x16 a) { return SumOf8(AddHalves(a)); }
// SumOf of each, in its order.
CAIRN_SIMD F32x16 SumsOf(const F32x16 (&a)[16]) {
  __m256 lo[8], hi[8];
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {
    lo[i] = AddHalves(a[i]);
    hi[i] = AddHalves(a[i + 8]);
  }
  return {SumsOf8(lo), SumsOf8(hi)};
}
CAIRN_SIMD float MaxOf(F32x16 a) { return MaxOf8(_mm256_max_ps(a.lo, a.hi)); }

// The first n < 16 lanes; the others read as zero and are not written.
CAIRN_SIMD __m256i FirstLanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
CAIRN_SIMD F32x16 LoadFirst(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, FirstLanes(n)), _mm256_maskload_ps(p + 8, FirstLanes(n - 8))};
}
CAIRN_SIMD void StoreFirst(float* p, int64_t n, F32x16 a) {
  _mm256_maskstore_ps(p, FirstLanes(n), a.lo);
  _mm256_maskstore_ps(p + 8, FirstLanes(n - 8), a.hi);
}

CAIRN_SIMD U32x16 LoadU32(const void* p) {
  const __m256i* at = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
CAIRN_SIMD void StoreU32(void* p, U32x16 a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, a.hi);
}
CAIRN_SIMD U32x16 BroadcastU32(const uint32_t* p) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(*p));
  return {v, v};
}

// The bf16 of the low and of the high half of each lane, as float32.
CAIRN_SIMD F32x16 LowBf16(U32x16 a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(a.hi, 16))};
}
CAIRN_SIMD F32x16 HighBf16(U32x16 a) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm256_castsi256_ps(_mm256_and_si256(a.lo, mask)), _mm256_castsi256_ps(_mm256_and_si256(a.hi, mask))};
}
CAIRN_SIMD F32x16 LoadBf16(const uint16_t* p) { return {LoadBf16Of8(p), LoadBf16Of8(p + 8)}; }
CAIRN_SIMD F32x16 LoadF16(const uint16_t* p) { return {LoadF16Of8(p), LoadF16Of8(p + 8)}; }
CAIRN_SIMD __m256 LoadI8Of8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
CAIRN_SIMD F32x16 LoadI8(const uint8_t* p) { return {LoadI8Of8(p), LoadI8Of8(p + 8)}; }
CAIRN_SIMD F32x16 WidenF8(__m128i codes) {
  const __m256i bits = F16BitsOfF8(codes);
  const F32x16 shifted = {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
  return Mul(shifted, Set(256));
}
CAIRN_SIMD F32x16 LoadF8(const uint8_t* p) { return WidenF8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// To the nearest bf16, ties to even, its bits in the high half of each lane (the low half is cleared); NaN stays NaN.
CAIRN_SIMD __m256i RoundBf16Of8(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, is_nan), _mm256_set1_epi32(static_cast<int>(0xffff0000)));
}
// Functions of 16-bit and 32-bit integers. Bit i of a mask: a[i] <= b[i]; a[i] < 0; a[i] >= 0.
CAIRN_SIMD U32x16 SetU32(uint32_t value) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(value));
  return {v, v};
}
CAIRN_SIMD U32x16 MinU32(U32x16 a, U32x16 b) { return {_mm256_min_epu32(a.lo, b.lo), _mm256_min_epu32(a.hi, b.hi)}; }
CAIRN_SIMD uint32_t MaskNegative(U32x16 a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(a.lo))) |
         static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(a.hi))) << 8;
}
CAIRN_SIMD uint32_t MaskAtMostU32(U32x16 a, U32x16 b) {
  const U32x16 least = MinU32(a, b);
  return MaskNegative({_mm256_cmpeq_epi32(least.lo, a.lo), _mm256_cmpeq_epi32(least.hi, a.hi)});
}
CAIRN_SIMD uint32_t MaskNotNegative(U32x16 a) { return MaskNegative(a) ^ 0xffff; }
// first + i for each bit i of the mask, ascending; how many. What is behind them, up to sixteen numbers, is undefined.
CAIRN_SIMD int StoreSetBits(int32_t* p, int32_t first, uint32_t mask) {
  int count = 0;
  for (; mask != 0; mask &= mask - 1) p[count++] = first + __builtin_ctz(mask);
  return count;
}
// Bit i: p[i] is not zero, i < 8.
CAIRN_SIMD uint32_t MaskNonZero(const uint64_t* p) {
  const auto are_zero = [p](int i) __attribute__((always_inline)) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    return static_cast<uint32_t>(
        _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(v, _mm256_setzero_si256()))));
  };
  return (are_zero(0) | are_zero(4) << 4) ^ 0xff;
}
// sum + the products of the two 16-bit integers in each lane.
CAIRN_SIMD U32x16 DotI16(U32x16 sum, U32x16 x, U32x16 w) {
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(x.lo, w.lo)),
          _mm256_add_epi32(sum.hi, _mm256_madd_epi16(x.hi, w.hi))};
}
// To the nearest integers, as far as 16 bits reach; NaN to zero.
CAIRN_SIMD void StoreI16(int16_t* p, F32x16 a) {
  const auto integers = [](__m256 v) __attribute__((always_inline)) {
    return _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
  };
  const __m256i packed = _mm256_packs_epi32(integers(a.lo), integers(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

CAIRN_SIMD U32x16 RoundBf16(F32x16 a) { return {RoundBf16Of8(a.lo), RoundBf16Of8(a.hi)}; }
CAIRN_SIMD F32x16 AsF32(U32x16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
CAIRN_SIMD U32x16 WhereU32(uint32_t mask, U32x16 a, U32x16 b) {
  const F32x16 v = Where(mask, AsF32(a), AsF32(b));
  return {_mm256_castps_si256(v.lo), _mm256_castps_si256(v.hi)};
}
// Sixteen bf16 from the high halves.
CAIRN_SIMD void StoreHighHalves(uint16_t* p, U32x16 a) {
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(a.lo, 16), _mm256_srli_epi32(a.hi, 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
CAIRN_SIMD F32x16 RoundF16(F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_cvtph_ps(_mm256_cvtps_ph(a.lo, kMode)), _mm256_cvtph_ps(_mm256_cvtps_ph(a.hi, kMode))};
}
CAIRN_SIMD void StoreF16(uint16_t* p, F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kMode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kMode));
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SIMD_AVX2_H_
