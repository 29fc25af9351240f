// Collectives of ranks on one host through their window. Any size: longer tensors take several steps.
#ifndef CAIRN_PARALLEL_COMM_HOST_COLLECTIVES_H_
#define CAIRN_PARALLEL_COMM_HOST_COLLECTIVES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/core/dtype.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/host_window.h"

namespace cairn {

// In place; the bits are those of the loop over ranks in order.
absl::Status HostAllReduce(HostWindow& window, void* data, int64_t count, DType dtype, ReduceOp op);

// out[r * bytes ...] = rank r's `in`, on every rank.
absl::Status HostAllGather(HostWindow& window, const uint8_t* in, size_t bytes, uint8_t* out);

// parts[r] = rank r's `in`, on `root` alone.
absl::Status HostGather(HostWindow& window, const uint8_t* in, size_t bytes, absl::Span<uint8_t* const> parts,
                        int root);

// `kind`: what it is part of, for errors.
absl::Status HostBroadcast(HostWindow& window, WindowOperation::Kind kind, uint8_t* data, size_t bytes, int root);

// Part `index` of `count` elements cut into `parts`, at multiples of a cache line.
struct SliceRange {
  int64_t begin, end;
};
SliceRange SliceOf(int64_t count, int parts, int index, size_t element_bytes);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_HOST_COLLECTIVES_H_
