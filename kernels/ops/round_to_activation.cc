#include "kernels/core/check.h"
#include "kernels/core/dtype.h"
#include "kernels/ops/elementwise.h"

namespace cairn {
namespace {

void RoundRow(DType type, float* row, int64_t n) {
  if (type == DType::kBFloat16) {
    for (int64_t i = 0; i < n; ++i) row[i] = BFloat16ToFloat(FloatToBFloat16(row[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) row[i] = Float16ToFloat(FloatToFloat16(row[i]));
  }
}

}  // namespace

void RoundToActivation(Context& context, const Tensor& x) {
  const DType type = context.activation_dtype();
  if (type == DType::kFloat32) return;
  CAIRN_CHECK(type == DType::kBFloat16 || type == DType::kFloat16, DTypeName(type));
  float* data = x.data<float>();
  context.threads().ParallelFor(
      x.dim(0), [&](int64_t row, int) { RoundRow(type, data + row * x.row_stride(), x.row_elements()); });
}

}  // namespace cairn
