#include "kernels/ops/window_queries.h"

#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void WindowQueries(Context& context, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out) {
  CheckOperand("WindowQueries", "out", context, out, DType::kFloat32, 3);
  const int64_t layers = static_cast<int64_t>(rings.size()) / std::max(1, rings_per_layer);
  CAIRN_CHECK(rings_per_layer > 0 && layers > 0 && layers * rings_per_layer == static_cast<int64_t>(rings.size()),
              "WindowQueries: ", rings.size(), " rings, ", rings_per_layer, " a layer");
  CAIRN_CHECK(out.is_contiguous() && out.dim(1) % rings_per_layer == 0 && out.dim(0) % layers == 0);
  for (const WindowRing& ring : rings) {
    CAIRN_CHECK(ring.oldest >= 0 && ring.oldest < out.dim(0) / layers, "row ", ring.oldest, " of ",
                out.dim(0) / layers);
  }
  CAIRN_DISPATCH(context, WindowQueries, rings, rings_per_layer, out);
}

}  // namespace cairn
