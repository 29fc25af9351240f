// What kernels_avx512_bf16.cc and kernels_avx512_amx.cc share: tile sizes and the bf16 dot product (vdpbf16ps).
// Included after simd_avx512.h.
#ifndef CAIRN_KERNELS_CPU_BF16_DOT_H_
#define CAIRN_KERNELS_CPU_BF16_DOT_H_

#define CAIRN_BF16_DOT 1

namespace cairn::cpu {
namespace {
constexpr int kMaxRows = 12, kMaxAccumulators = 24, kMaxAccumulatorsWidened = 24;

// sum + x[odd] w[odd] + x[even] w[even] per lane.
CAIRN_SIMD F32x16 DotBf16(F32x16 sum, U32x16 x, U32x16 w) {
  return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v))};
}
}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_BF16_DOT_H_
