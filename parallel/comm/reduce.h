// The arithmetic of a reduction over ranks, one order for every communicator: ((x0 op x1) op x2) ...
#ifndef CAIRN_PARALLEL_COMM_REDUCE_H_
#define CAIRN_PARALLEL_COMM_REDUCE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/dtype.h"
#include "parallel/comm/communicator.h"

namespace cairn {

// out[i] = sources[0][i] op sources[1][i] op ..., left to right. `out` overlaps no source. kFloat32 or kInt64. An int64
// sum wraps. The minimum and maximum of floats are NaN where any rank holds NaN: a NaN must not be lost in a
// comparison, nor depend on which rank has it.
void ReduceInRankOrder(absl::Span<const void* const> sources, int64_t count, DType dtype, ReduceOp op, void* out);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_REDUCE_H_
