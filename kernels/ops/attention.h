// Attention over the paged cache, and the append that fills it. q, k, v are activations and may be column slices of one
// QKV matrix (rows strided). Block tables are host memory on every device, the pool is the device's.
#ifndef CAIRN_KERNELS_OPS_ATTENTION_H_
#define CAIRN_KERNELS_OPS_ATTENTION_H_

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// Writes this step's keys, values and positions into the slots that each sequence's view gives its rows; running scores
// of these slots (KvBlockLayout::num_scores) become zero.
// k, v: row t of T holds [kv_heads, d], positions [T] int32.
void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences);

// out[t, h] = softmax(q[t, h] . K / sqrt(d)) V over the slots that row t may see: those up to its own slot, and with
// sliding_window W > 0 only those whose position is greater than its own position - W. Query head h reads KV head
// h / (heads / kv_heads). q [T, heads, d], positions [T] int32, out [T, heads, d]. A row's sum runs over its slots
// in one fixed order, so prefill in chunks, decode and any batch give the same bits. (On CUDA rows that come alone, as
// in decode, and rows that come together, as in prefill, may differ in the last bits; the batch still does not matter.)
void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out);

// Takes the scratch memory that PagedAttention of `rows` rows needs at most over `max_slots` slots, so that no step has
// to grow it. Nothing on CPU.
void ReserveAttention(Context& context, int64_t rows, int64_t heads, int64_t head_dim, int64_t max_slots);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_ATTENTION_H_
