#include "kernels/ops/quantize.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void QuantizeRows(Context& context, const Tensor& x, const Tensor& codes, const Tensor& scales) {
  CheckActivation("QuantizeRows", "x", context, x, 2);
  CheckOperand("QuantizeRows", "codes", context, codes, DType::kFloat8E4M3, 2);
  CheckOperand("QuantizeRows", "scales", context, scales, DType::kFloat32, 1);
  CAIRN_CHECK(codes.dim(0) >= x.dim(0), "QuantizeRows: room for ", codes.dim(0), " rows of ", x.dim(0));
  CheckDim("QuantizeRows", "codes", codes, 1, Float8Padded(x.dim(1)));
  CheckDim("QuantizeRows", "scales", scales, 0, codes.dim(0));
  CAIRN_CHECK(codes.is_contiguous() && scales.is_contiguous(), "QuantizeRows: codes and scales must be contiguous");
  if (scales.num_elements() == 0) return;
  CAIRN_DISPATCH(context, QuantizeRows, x, codes, scales);
}

}  // namespace cairn
