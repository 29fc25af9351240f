// Rows as 8-bit floats and a scale each (the definition: kernels/core/float8.h): what a product with E4M3 weights makes
// of its activations, the same codes and scales on every device.
#ifndef CAIRN_KERNELS_OPS_QUANTIZE_H_
#define CAIRN_KERNELS_OPS_QUANTIZE_H_

#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// What cuBLASLt wants the sizes of E4M3 matrices to be multiples of.
inline constexpr int64_t kFloat8Multiple = 16;

inline int64_t Float8Padded(int64_t n) { return (n + kFloat8Multiple - 1) / kFloat8Multiple * kFloat8Multiple; }

// x [M, K] activations, codes [R, Float8Padded(K)] E4M3 without gaps, scales [R] float32, R >= M. Codes beside and
// below x, and scales below, are zero. No two may overlap.
void QuantizeRows(Context& context, const Tensor& x, const Tensor& codes, const Tensor& scales);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_QUANTIZE_H_
