#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace cairn::cpu {

void WindowQueries(Context&, absl::Span<const float* const> rings, int oldest, const Tensor& out) {
  const int64_t w = out.dim(0), floats = out.row_elements() / static_cast<int64_t>(rings.size());
  float* to = out.data<float>();
  for (int64_t r = 0; r < w; ++r) {
    for (const float* ring : rings) to = std::copy_n(ring + (oldest + r) % w * floats, floats, to);
  }
}

}  // namespace cairn::cpu
