// AVX2, FMA, F16C: 16 registers of 8 lanes. See kernels/cpu/kernels.h on what may be included here.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd_math.h"

namespace cairn::cpu {
namespace {
// 6 x 16 sums take 12 registers; 2 hold the weights, 1 the activation.
constexpr int kMaxRows = 6, kMaxAccumulators = 6, kMaxAccumulatorsWidened = 5;
}  // namespace
}  // namespace cairn::cpu

#include "kernels/cpu/vector_kernels.h"

namespace cairn::cpu {
constinit const Kernels kAvx2Kernels = VectorKernels("avx2");
}  // namespace cairn::cpu
