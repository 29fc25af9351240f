#include "kernels/core/weight_vector.h"

#include <algorithm>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<WeightVector> WeightVector::Create(Device device, DType dtype, absl::Span<const float> values) {
  WeightVector vector;
  if (values.empty()) return vector;
  CAIRN_ASSIGN_OR_RETURN(vector.buffer_, Buffer::Allocate(device, values.size() * DTypeSize(dtype)));
  vector.tensor_ = Tensor(vector.buffer_.data(), dtype, {static_cast<int64_t>(values.size())}, device);
  if (dtype == DType::kFloat32) {
    vector.buffer_.Fill(values.data(), vector.size_bytes());
    return vector;
  }
  CAIRN_CHECK(dtype == DType::kBFloat16 || dtype == DType::kFloat16, DTypeName(dtype));
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(),
                 dtype == DType::kBFloat16 ? FloatToBFloat16 : FloatToFloat16);
  vector.buffer_.Fill(bits.data(), vector.size_bytes());
  return vector;
}

}  // namespace cairn
