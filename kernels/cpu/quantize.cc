#include <algorithm>

#include "kernels/core/float8.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {

void QuantizeRows(Context& context, const Tensor& x, const Tensor& codes, const Tensor& scales) {
  const int64_t M = x.dim(0), K = x.dim(1), padded = codes.dim(1);
  uint8_t* const all_codes = static_cast<uint8_t*>(codes.raw());
  float* const all_scales = scales.data<float>();
  ParallelRows(context, codes.dim(0), padded, [&](int64_t row) {
    uint8_t* const to = all_codes + row * padded;
    std::fill_n(to, padded, uint8_t{0});
    all_scales[row] = 0;
    if (row >= M) return;
    const float* const from = x.data<float>() + row * x.row_stride();
    const Float8Scale scale = Float8ScaleFor(MaxMagnitude(from, K));
    for (int64_t k = 0; k < K; ++k) to[k] = FloatToFloat8E4M3(from[k] * scale.inverse);
    all_scales[row] = scale.scale;
  });
}

}  // namespace cairn::cpu
