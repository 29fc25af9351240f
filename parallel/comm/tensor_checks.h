// What every communicator refuses, in the same words.
#ifndef CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_
#define CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_

#include "absl/status/status.h"
#include "kernels/core/tensor.h"

namespace cairn {

// INVALID_ARGUMENT unless `data` is contiguous host memory.
absl::Status CheckHostTensor(const char* operation, const Tensor& data);
// INVALID_ARGUMENT unless `data` is contiguous memory of that GPU.
absl::Status CheckDeviceTensor(const char* operation, const Tensor& data, Device device);
// INVALID_ARGUMENT unless `data` is contiguous and has memory, wherever that is.
absl::Status CheckWhole(const char* operation, const Tensor& data);
// INVALID_ARGUMENT unless kFloat32 or kInt64.
absl::Status CheckReducibleType(const char* operation, const Tensor& data);
// INVALID_ARGUMENT unless `out` has the type and `size` times the elements of `in`.
absl::Status CheckGatheredShape(const char* operation, const Tensor& in, const Tensor& out, int size);

// On host memory: CheckHostTensor and the type.
absl::Status CheckReducible(const char* operation, const Tensor& data);
// On host memory: both, and their shapes.
absl::Status CheckGathered(const char* operation, const Tensor& in, const Tensor& out, int size);
// INVALID_ARGUMENT unless 0 <= peer < size.
absl::Status CheckPeer(const char* operation, int peer, int size);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_
