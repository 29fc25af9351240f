#include "kernels/ops/attention.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/check_sequences.h"
#include "kernels/ops/dispatch.h"

namespace cairn {
void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences) {
  CheckActivation("KvAppend", "k", context, k, 3);
  CheckActivation("KvAppend", "v", context, v, 3);
  CheckOperand("KvAppend", "positions", context, positions, DType::kInt32, 1);
  for (int i = 0; i < 3; ++i) CheckDim("KvAppend", "v", v, i, k.dim(i));
  CheckDim("KvAppend", "positions", positions, 0, k.dim(0));
  CheckSequences("KvAppend", sequences, k.dim(0), k.dim(1), k.dim(2));
  CAIRN_DISPATCH(context, KvAppend, k, v, positions, sequences);
}

void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out) {
  CheckActivation("PagedAttention", "q", context, q, 3);
  CheckOperand("PagedAttention", "positions", context, positions, DType::kInt32, 1);
  CheckActivation("PagedAttention", "out", context, out, 3);
  for (int i = 0; i < 3; ++i) CheckDim("PagedAttention", "out", out, i, q.dim(i));
  CheckDim("PagedAttention", "positions", positions, 0, q.dim(0));
  CheckSequences("PagedAttention", sequences, q.dim(0), -1, q.dim(2));
  for (const SequenceRows& rows : sequences) {
    const int kv_heads = rows.kv.layout.kv_heads;
    CAIRN_CHECK(kv_heads > 0 && q.dim(1) % kv_heads == 0, "PagedAttention: ", q.dim(1), " query heads over ", kv_heads,
                " KV heads");
  }
  CAIRN_DISPATCH(context, PagedAttention, q, positions, sequences, sliding_window, out);
}

void ReserveAttention([[maybe_unused]] Context& context, [[maybe_unused]] int64_t rows, [[maybe_unused]] int64_t heads,
                      [[maybe_unused]] int64_t head_dim, [[maybe_unused]] int64_t max_slots) {
#if CAIRN_CUDA
  if (!context.device().is_cpu()) cuda::ReserveAttention(context, rows, heads, head_dim, max_slots);
#endif
}

}  // namespace cairn
