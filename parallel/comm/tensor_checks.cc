#include "parallel/comm/tensor_checks.h"

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::Status CheckHostTensor(const char* operation, const Tensor& data) {
  if (!data.device().is_cpu()) {
    return absl::InvalidArgumentError(
        absl::StrCat(operation, ": the tensor is in device memory; this communicator ", "moves host memory"));
  }
  return CheckWhole(operation, data);
}

absl::Status CheckDeviceTensor(const char* operation, const Tensor& data, Device device) {
  if (!(data.device() == device)) {
    return absl::InvalidArgumentError(
        absl::StrCat(operation, ": the tensor is in another device's memory than GPU ", device.index, "'s"));
  }
  return CheckWhole(operation, data);
}

absl::Status CheckWhole(const char* operation, const Tensor& data) {
  if (!data.is_contiguous()) {
    return absl::InvalidArgumentError(absl::StrCat(operation, ": the tensor is not contiguous: rows of ",
                                                   data.row_elements(), " elements lie ", data.row_stride(), " apart"));
  }
  if (data.raw() == nullptr && data.size_bytes() > 0) {
    return absl::InvalidArgumentError(absl::StrCat(operation, ": the tensor has no memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckReducible(const char* operation, const Tensor& data) {
  CAIRN_RETURN_IF_ERROR(CheckHostTensor(operation, data));
  return CheckReducibleType(operation, data);
}

absl::Status CheckReducibleType(const char* operation, const Tensor& data) {
  if (data.dtype() != DType::kFloat32 && data.dtype() != DType::kInt64) {
    return absl::InvalidArgumentError(
        absl::StrCat(operation, ": expected float32 or int64, got ", DTypeName(data.dtype())));
  }
  return absl::OkStatus();
}

absl::Status CheckGathered(const char* operation, const Tensor& in, const Tensor& out, int size) {
  CAIRN_RETURN_IF_ERROR(CheckHostTensor(operation, in));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor(operation, out));
  return CheckGatheredShape(operation, in, out, size);
}

absl::Status CheckGatheredShape(const char* operation, const Tensor& in, const Tensor& out, int size) {
  if (out.dtype() != in.dtype() || out.num_elements() != size * in.num_elements()) {
    return absl::InvalidArgumentError(absl::StrCat(operation, ": expected an output of ", size, " x ",
                                                   in.num_elements(), " ", DTypeName(in.dtype()), ", got ",
                                                   out.num_elements(), " ", DTypeName(out.dtype())));
  }
  return absl::OkStatus();
}

absl::Status CheckPeer(const char* operation, int peer, int size) {
  if (peer >= 0 && peer < size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(operation, ": rank ", peer, " is not in this group of ", size));
}

}  // namespace cairn
