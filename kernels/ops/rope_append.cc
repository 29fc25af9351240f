#include "kernels/ops/rope_append.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/check_sequences.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void RopeAppend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                const Tensor& inv_freq, absl::Span<const SequenceRows> sequences, const QueryRings& rings,
                float attention_scale) {
  CheckActivation("RopeAppend", "q", context, q, 3);
  CheckActivation("RopeAppend", "k", context, k, 3);
  CheckActivation("RopeAppend", "v", context, v, 3);
  CheckOperand("RopeAppend", "positions", context, positions, DType::kInt32, 1);
  CheckOperand("RopeAppend", "inv_freq", context, inv_freq, DType::kFloat32, 1);
  CAIRN_CHECK(positions.is_contiguous() && inv_freq.is_contiguous(),
              "RopeAppend: positions and inv_freq must be contiguous");
  CheckDim("RopeAppend", "k", k, 0, q.dim(0));
  CheckDim("RopeAppend", "k", k, 2, q.dim(2));
  for (int i = 0; i < 3; ++i) CheckDim("RopeAppend", "v", v, i, k.dim(i));
  CheckDim("RopeAppend", "positions", positions, 0, q.dim(0));
  CAIRN_CHECK(q.dim(2) == 2 * inv_freq.dim(0), "RopeAppend: head_dim ", q.dim(2), " with ", inv_freq.dim(0),
              " frequencies");
  CheckSequences("RopeAppend", sequences, q.dim(0), k.dim(1), k.dim(2));
  CAIRN_CHECK(rings.window == 0 || (rings.window > 0 && rings.rings.size() == sequences.size()),
              "RopeAppend: ", rings.rings.size(), " rings for ", sequences.size(), " sequences, window ", rings.window);
  if (q.num_elements() == 0) return;
  CAIRN_DISPATCH(context, RopeAppend, q, k, v, positions, inv_freq, sequences, rings, attention_scale);
}

}  // namespace cairn
