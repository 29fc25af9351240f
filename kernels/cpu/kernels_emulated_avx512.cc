// The AVX-512 BF16 kernels, register tiles and all, on pairs of AVX2 registers: lets CPUs without AVX-512 test them.
// Only tests name this table, so that no program links it.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd_math.h"

namespace cairn::cpu {
namespace {
constexpr int kMaxRows = 12, kMaxAccumulators = 24, kMaxAccumulatorsWidened = 24;

// vdpbf16ps, but for its flushing of subnormal values (Intel's manual gives the order: the odd halves first).
CAIRN_SIMD F32x16 DotBf16(F32x16 sum, U32x16 x, U32x16 w) {
  return Fma(LowBf16(x), LowBf16(w), Fma(HighBf16(x), HighBf16(w), sum));
}
}  // namespace
}  // namespace cairn::cpu

#define CAIRN_BF16_DOT 1
#include "kernels/cpu/vector_kernels.h"

namespace cairn::cpu {
constinit const Kernels kEmulatedAvx512Kernels = VectorKernels("emulated_avx512");
}  // namespace cairn::cpu
