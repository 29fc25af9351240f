#include "kernels/ops/decode_graphs.h"

#include <algorithm>

#include "kernels/core/check.h"
#if CAIRN_CUDA
#include "kernels/cuda/decode_graphs.h"
#endif

namespace cairn {

absl::StatusOr<std::unique_ptr<DecodeGraphs>> DecodeGraphs::Create([[maybe_unused]] Context* context,
                                                                   [[maybe_unused]] const Shape& shape) {
#if CAIRN_CUDA
  if (!context->device().is_cpu()) return cuda::MakeDecodeGraphs(context, shape);
#endif
  return absl::FailedPreconditionError("steps are recorded on a GPU alone");
}

int DecodeGraphs::PaddedRows(int rows, int max_rows) {
  CAIRN_CHECK(rows > 0 && rows <= max_rows, rows, " rows, at most ", max_rows);
  int padded = 1;
  while (padded < rows) padded = padded < 8 ? 2 * padded : padded + 8;
  return std::min(padded, max_rows);
}

}  // namespace cairn
