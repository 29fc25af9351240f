#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace cairn::cpu {

void WindowQueries(Context&, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out) {
  const int64_t layers = static_cast<int64_t>(rings.size()) / rings_per_layer, w = out.dim(0) / layers;
  const int64_t floats = out.row_elements() / rings_per_layer;
  float* to = out.data<float>();
  for (int64_t l = 0; l < layers; ++l) {
    for (int64_t r = 0; r < w; ++r) {
      for (const WindowRing& ring : rings.subspan(l * rings_per_layer, rings_per_layer)) {
        to = std::copy_n(ring.rows + (ring.oldest + r) % w * floats, floats, to);
      }
    }
  }
}

}  // namespace cairn::cpu
