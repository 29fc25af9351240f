// All loops and the table of an instruction set. Included last by each instruction set's file, after its simd header,
// simd_math.h, its tile sizes (kMaxRows and so on) and, where it has one, its bf16 dot product.
#ifndef CAIRN_KERNELS_CPU_VECTOR_KERNELS_H_
#define CAIRN_KERNELS_CPU_VECTOR_KERNELS_H_

#include "kernels/cpu/attention_loops.h"
#include "kernels/cpu/matmul_loops.h"
#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/score_loops.h"

namespace cairn::cpu {
namespace {

#if CAIRN_BF16_DOT
constexpr auto kMultiplyBf16Pairs = Multiply<Bf16DotWeights>;
#else
constexpr void (*kMultiplyBf16Pairs)(const MatMulTile&) = nullptr;
#endif

constexpr Kernels VectorKernels(const char* name) {
  return {
      .name = name,
      .max_rows = kMaxRows,
      .panels_at_once = PanelsAtOnce(kMaxRows, false),
      .multiply = {Multiply<F32Weights>, Multiply<Bf16Weights>, Multiply<F16Weights>, Multiply<F8Weights>,
                   Multiply<I8Weights>},
      .multiply_bf16_pairs = kMultiplyBf16Pairs,
      .pack_bf16_pairs = PackBf16Pairs,
      .tiled_pairs = false,
      .rms_norm = RmsNormRow,
      .rotate = RotateRow,
      .swiglu = SwiGluRow,
      .add = AddRow,
      .round = RoundRow,
      .convert = {ConvertToF32, ConvertToBf16, ConvertToF16},
      .attend = Attend,
      .merge_attention = MergeAttention,
      .finish_attention = FinishAttention,
      .key_logits = KeyLogits,
      .exp_row = ExpRow,
      .add_scaled = AddScaledRow,
      .max_row = MaxRow,
      .unit_keys = UnitKeys,
      .key_panels = KeyPanels,
      .similar_keys = SimilarKeys,
      .below = Below,
      .unit_dots = UnitDots,
      .pair_dots = PairDots,
  };
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_VECTOR_KERNELS_H_
