// AVX-512 F, BW, DQ, VL: 32 registers of 16 lanes. See kernels/cpu/kernels.h on what may be included here.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_math.h"

namespace cairn::cpu {
namespace {
constexpr int kMaxRows = 12, kMaxAccumulators = 24, kMaxAccumulatorsWidened = 24;
}  // namespace
}  // namespace cairn::cpu

#include "kernels/cpu/vector_kernels.h"

namespace cairn::cpu {
constinit const Kernels kAvx512Kernels = VectorKernels("avx512");
}  // namespace cairn::cpu
