// The queries that score a layer's slots, put in order.
#ifndef CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_
#define CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// out [w, sum of heads, d] f32: the rows of the rings ([w, heads, d] f32 each, see RecordQueries) from row `oldest` on,
// the rings side by side in each row. One ring, or one of each rank that has a part of the group of one KV head.
void WindowQueries(Context& context, absl::Span<const float* const> rings, int oldest, const Tensor& out);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_
