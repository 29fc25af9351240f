// What every communicator on host memory refuses, in the same words.
#ifndef CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_
#define CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_

#include "absl/status/status.h"
#include "kernels/core/tensor.h"

namespace cairn {

// INVALID_ARGUMENT unless `data` is contiguous host memory.
absl::Status CheckHostTensor(const char* operation, const Tensor& data);
// The same, and kFloat32 or kInt64.
absl::Status CheckReducible(const char* operation, const Tensor& data);
// Both, and `out` has the type and `size` times the elements of `in`.
absl::Status CheckGathered(const char* operation, const Tensor& in, const Tensor& out, int size);
// INVALID_ARGUMENT unless 0 <= peer < size.
absl::Status CheckPeer(const char* operation, int peer, int size);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_TENSOR_CHECKS_H_
