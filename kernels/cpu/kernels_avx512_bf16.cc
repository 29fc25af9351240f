// AVX-512 with bf16 dot products. See kernels/cpu/kernels.h on what may be included here.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_math.h"
// Then what these are used by.
#include "kernels/cpu/bf16_dot.h"
#include "kernels/cpu/vector_kernels.h"

namespace cairn::cpu {
constinit const Kernels kAvx512Bf16Kernels = VectorKernels("avx512_bf16");
}  // namespace cairn::cpu
