#include "kernels/ops/window_queries.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void WindowQueries(Context& context, absl::Span<const float* const> rings, int oldest, const Tensor& out) {
  CheckOperand("WindowQueries", "out", context, out, DType::kFloat32, 3);
  CAIRN_CHECK(out.is_contiguous() && !rings.empty() && out.dim(1) % static_cast<int64_t>(rings.size()) == 0);
  CAIRN_CHECK(oldest >= 0 && oldest < out.dim(0), "row ", oldest, " of ", out.dim(0));
  CAIRN_DISPATCH(context, WindowQueries, rings, oldest, out);
}

}  // namespace cairn
