// Sixteen float32 lanes as one AVX-512 register: the functions of simd_avx2.h, which explains them. Included by the
// files compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl, inside their own unnamed namespace.
#ifndef CAIRN_KERNELS_CPU_SIMD_AVX512_H_
#define CAIRN_KERNELS_CPU_SIMD_AVX512_H_

#include "kernels/cpu/simd_256.h"

namespace cairn::cpu {
namespace {

constexpr int kLanes = 16;

struct F32x16 {
  __m512 v;
};
struct U32x16 {
  __m512i v;
};

CAIRN_SIMD F32x16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
CAIRN_SIMD void Store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
CAIRN_SIMD F32x16 Set(float value) { return {_mm512_set1_ps(value)}; }
CAIRN_SIMD F32x16 Broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
CAIRN_SIMD F32x16 ZeroExtend(__m256 a) { return {_mm512_zextps256_ps512(a)}; }
CAIRN_SIMD F32x16 Zero() { return {_mm512_setzero_ps()}; }
CAIRN_SIMD F32x16 Add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 Sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 Mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 Div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 Sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
CAIRN_SIMD F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
CAIRN_SIMD F32x16 Max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 Min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
CAIRN_SIMD F32x16 ShiftLeft23(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}
CAIRN_SIMD float First(F32x16 a) { return _mm512_cvtss_f32(a.v); }
CAIRN_SIMD F32x16 Where(uint32_t mask, F32x16 a, F32x16 b) {
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(mask), b.v, a.v)};
}
CAIRN_SIMD uint32_t MaskAtLeast(const int32_t* p, int32_t bound) {
  return _mm512_cmp_epi32_mask(_mm512_loadu_si512(p), _mm512_set1_epi32(bound), _MM_CMPINT_NLT);
}

CAIRN_SIMD uint32_t MaskGreater(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }

CAIRN_SIMD __m256 AddHalves(F32x16 a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}
CAIRN_SIMD float SumOf(F32x16 a) { return SumOf8(AddHalves(a)); }
CAIRN_SIMD F32x16 SumsOf(const F32x16 (&a)[16]) {
  __m512 eight[8], four[4], two[2];
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {  // 2i | 2i + 1
    eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i].v, a[2 * i + 1].v, 0x44),
                             _mm512_shuffle_f32x4(a[2 * i].v, a[2 * i + 1].v, 0xee));
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {  // 4i | 4i + 1 | 4i + 2 | 4i + 3
    four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(eight[2 * i], eight[2 * i + 1], 0x88),
                            _mm512_shuffle_f32x4(eight[2 * i], eight[2 * i + 1], 0xdd));
  }
  _Pragma("GCC unroll 2") for (int i = 0; i < 2; ++i) {  // 8i, 8i + 4 | 8i + 1, 8i + 5 | and so on
    two[i] = _mm512_add_ps(_mm512_shuffle_ps(four[2 * i], four[2 * i + 1], 0x44),
                           _mm512_shuffle_ps(four[2 * i], four[2 * i + 1], 0xee));
  }
  const __m512 one = _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd));
  return {_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), one)};
}
CAIRN_SIMD float MaxOf(F32x16 a) {
  return MaxOf8(_mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1)));
}

CAIRN_SIMD __mmask16 FirstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
CAIRN_SIMD F32x16 LoadFirst(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(FirstLanes(n), p)}; }
CAIRN_SIMD void StoreFirst(float* p, int64_t n, F32x16 a) { _mm512_mask_storeu_ps(p, FirstLanes(n), a.v); }

CAIRN_SIMD U32x16 LoadU32(const void* p) { return {_mm512_loadu_si512(p)}; }
CAIRN_SIMD void StoreU32(void* p, U32x16 a) { _mm512_storeu_si512(p, a.v); }
CAIRN_SIMD U32x16 BroadcastU32(const uint32_t* p) { return {_mm512_set1_epi32(static_cast<int>(*p))}; }

CAIRN_SIMD F32x16 LowBf16(U32x16 a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}; }
CAIRN_SIMD F32x16 HighBf16(U32x16 a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(0xffff0000))))};
}
CAIRN_SIMD F32x16 LoadBf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
CAIRN_SIMD F32x16 LoadF16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
CAIRN_SIMD F32x16 LoadI8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
CAIRN_SIMD F32x16 WidenF8(__m128i codes) { return Mul({_mm512_cvtph_ps(F16BitsOfF8(codes))}, Set(256)); }
CAIRN_SIMD F32x16 LoadF8(const uint8_t* p) { return WidenF8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// The functions of 16-bit and 32-bit integers.
CAIRN_SIMD U32x16 SetU32(uint32_t value) { return {_mm512_set1_epi32(static_cast<int>(value))}; }
CAIRN_SIMD U32x16 MinU32(U32x16 a, U32x16 b) { return {_mm512_min_epu32(a.v, b.v)}; }
CAIRN_SIMD uint32_t MaskAtMostU32(U32x16 a, U32x16 b) { return _mm512_cmple_epu32_mask(a.v, b.v); }
CAIRN_SIMD uint32_t MaskNotNegative(U32x16 a) { return _mm512_cmpge_epi32_mask(a.v, _mm512_setzero_si512()); }
CAIRN_SIMD U32x16 WhereU32(uint32_t mask, U32x16 a, U32x16 b) {
  return {_mm512_mask_blend_epi32(static_cast<__mmask16>(mask), b.v, a.v)};
}
CAIRN_SIMD int StoreSetBits(int32_t* p, int32_t first, uint32_t mask) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), numbers));
  return __builtin_popcount(mask);
}
CAIRN_SIMD uint32_t MaskNonZero(const uint64_t* p) {
  const __m512i v = _mm512_loadu_si512(p);
  return _mm512_test_epi64_mask(v, v);
}
CAIRN_SIMD U32x16 DotI16(U32x16 sum, U32x16 x, U32x16 w) {
#ifdef __AVX512VNNI__
  // Not by its intrinsic, for which GCC 12 copies every sum to another register and back.
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(w.v));
  return sum;
#else
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(x.v, w.v))};
#endif
}
CAIRN_SIMD void StoreI16(int16_t* p, F32x16 a) {
  const __mmask16 is_number = _mm512_cmp_ps_mask(a.v, a.v, _CMP_ORD_Q);
  const __m512i integers = _mm512_maskz_cvtps_epi32(is_number, a.v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(integers));
}

CAIRN_SIMD U32x16 RoundBf16(F32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm512_and_si512(_mm512_mask_blend_epi32(is_nan, rounded, quiet), high)};
}
CAIRN_SIMD F32x16 AsF32(U32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
CAIRN_SIMD void StoreHighHalves(uint16_t* p, U32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(a.v, 16)));
}
CAIRN_SIMD F32x16 RoundF16(F32x16 a) {
  return {_mm512_cvtph_ps(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}
CAIRN_SIMD void StoreF16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SIMD_AVX512_H_
