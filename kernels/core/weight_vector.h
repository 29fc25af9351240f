// A vector of a layer's parameters (norm weights, a bias, rotary frequencies) in the memory of its device.
#ifndef CAIRN_KERNELS_CORE_WEIGHT_VECTOR_H_
#define CAIRN_KERNELS_CORE_WEIGHT_VECTOR_H_

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/core/buffer.h"
#include "kernels/core/tensor.h"

namespace cairn {

class WeightVector {
 public:
  WeightVector() = default;  // none
  // `values` in kFloat32, kBFloat16 or kFloat16, rounded to nearest even. RESOURCE_EXHAUSTED where they do not fit.
  static absl::StatusOr<WeightVector> Create(Device device, DType dtype, absl::Span<const float> values);

  // [size]; a tensor without memory where there is none, as MatMulOptions takes it.
  const Tensor& tensor() const { return tensor_; }
  bool empty() const { return tensor_.raw() == nullptr; }
  size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_WEIGHT_VECTOR_H_
