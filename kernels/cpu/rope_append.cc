#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {

void RopeAppend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                const Tensor& inv_freq, absl::Span<const SequenceRows> sequences, const QueryRings& rings,
                float attention_scale) {
  cpu::Rope(context, q, positions, inv_freq, attention_scale);
  cpu::Rope(context, k, positions, inv_freq, attention_scale);
  cpu::KvAppend(context, k, v, positions, sequences);
  if (rings.window > 0) cpu::RecordQueries(context, q, positions, sequences, rings.rings, rings.window);
}

}  // namespace cairn::cpu
