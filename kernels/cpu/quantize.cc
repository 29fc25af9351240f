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
    all_scales[row] = RowToFloat8(x.data<float>() + row * x.row_stride(), K, to);
  });
}

}  // namespace cairn::cpu
