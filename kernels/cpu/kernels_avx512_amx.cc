// AVX-512 with bf16 dot products, and AMX tiles for products of bf16 weights. See kernels/cpu/kernels.h on what may be
// included here.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_math.h"
// Then what these are used by.
#include "kernels/cpu/bf16_dot.h"
#include "kernels/cpu/vector_kernels.h"
// And these.
#include "kernels/cpu/amx_loops.h"

namespace cairn::cpu {
namespace {

constexpr Kernels WithTiles(Kernels kernels) {
  kernels.multiply_bf16_pairs = MultiplyTiles;
  kernels.pack_bf16_pairs = PackTileRow;
  kernels.tiled_pairs = true;
  return kernels;
}

}  // namespace

constinit const Kernels kAvx512AmxKernels = WithTiles(VectorKernels("avx512_amx"));
}  // namespace cairn::cpu
