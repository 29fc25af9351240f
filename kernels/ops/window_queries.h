// The queries that score a layer's slots, put in order.
#ifndef CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_
#define CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// A layer's ring, or with the rings of other ranks that have a part of the group of its one KV head, and its oldest
// row.
struct WindowRing {
  const float* rows = nullptr;  // [w, heads, d] f32 on the context's device, see RecordQueries
  int32_t oldest = 0;
};

// out [layers * w, sum of heads, d] f32: for each layer the rows of its rings from the oldest on, `rings_per_layer` of
// them side by side in each row.
void WindowQueries(Context& context, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_WINDOW_QUERIES_H_
