// AVX-512 with bf16 dot products (vdpbf16ps). See kernels/cpu/kernels.h on what may be included here.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_math.h"

namespace cairn::cpu {
namespace {
constexpr int kMaxRows = 12, kMaxAccumulators = 24, kMaxAccumulatorsWidened = 24;

// sum + x[odd] w[odd] + x[even] w[even] per lane.
CAIRN_SIMD F32x16 DotBf16(F32x16 sum, U32x16 x, U32x16 w) {
  return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v))};
}
}  // namespace
}  // namespace cairn::cpu

#define CAIRN_BF16_DOT 1
#include "kernels/cpu/vector_kernels.h"

namespace cairn::cpu {
constinit const Kernels kAvx512Bf16Kernels = VectorKernels("avx512_bf16");
}  // namespace cairn::cpu
