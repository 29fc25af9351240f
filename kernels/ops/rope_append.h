// What a layer does between its projections and its attention, in one pass over the rows.
#ifndef CAIRN_KERNELS_OPS_ROPE_APPEND_H_
#define CAIRN_KERNELS_OPS_ROPE_APPEND_H_

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// Where the last `window` queries of each sequence of a step go, as RecordQueries has it; window 0: nowhere.
struct QueryRings {
  absl::Span<float* const> rings;  // one per sequence
  int window = 0;
};

// Rope of q and k (elementwise.h), KvAppend of k and v (attention.h) and RecordQueries of q (kv_select.h): the same
// bits as these give one after the other. q [T, heads, d], in place; k, v [T, kv_heads, d]; positions [T] int32;
// inv_freq [d / 2] f32. k is unspecified afterwards, and so are rows of q that belong to no sequence.
void RopeAppend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                const Tensor& inv_freq, absl::Span<const SequenceRows> sequences, const QueryRings& rings,
                float attention_scale = 1);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_ROPE_APPEND_H_
