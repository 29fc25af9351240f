// What simd_avx2.h and simd_avx512.h both build on: 256-bit registers. Included by these two, inside their files' own
// unnamed namespace.
#ifndef CAIRN_KERNELS_CPU_SIMD_256_H_
#define CAIRN_KERNELS_CPU_SIMD_256_H_

#include <immintrin.h>

#include <cstdint>

#define CAIRN_SIMD inline __attribute__((always_inline))

namespace cairn::cpu {
namespace {

// Lanes i and i + 4, then i and i + 2, and so on: one order on every instruction set.
CAIRN_SIMD float SumOf8(__m256 a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
// SumOf8 of each, in its order.
CAIRN_SIMD __m256 SumsOf8(const __m256 (&a)[8]) {
  __m256 four[4], two[2];
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {  // 2i | 2i + 1
    four[i] = _mm256_add_ps(_mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x20),
                            _mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x31));
  }
  _Pragma("GCC unroll 2") for (int i = 0; i < 2; ++i) {  // 4i, 4i + 2 | 4i + 1, 4i + 3
    two[i] = _mm256_add_ps(_mm256_shuffle_ps(four[2 * i], four[2 * i + 1], 0x44),
                           _mm256_shuffle_ps(four[2 * i], four[2 * i + 1], 0xee));
  }
  const __m256 one = _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
  return _mm256_permutevar8x32_ps(one, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
CAIRN_SIMD float MaxOf8(__m256 a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

CAIRN_SIMD __m256 LoadBf16Of8(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
CAIRN_SIMD __m256 LoadF16Of8(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Sixteen E4M3 numbers: the bits of an f16 of 2^-8 the value (the exponents' biases are 7 and 15; subnormal numbers
// too), but for NaN.
CAIRN_SIMD __m256i F16BitsOfF8(__m128i codes) {
  const __m256i wide = _mm256_cvtepu8_epi16(codes);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_xor_si256(wide, magnitude), 8);
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  return _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign), nan);
}
CAIRN_SIMD __m256 LoadF8Of8(const uint8_t* p) {
  const __m256i bits = F16BitsOfF8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(bits)), _mm256_set1_ps(256));
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SIMD_256_H_
