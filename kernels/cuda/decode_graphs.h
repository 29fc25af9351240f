// Decode steps as CUDA graphs (kernels/ops/decode_graphs.h).
#ifndef CAIRN_KERNELS_CUDA_DECODE_GRAPHS_H_
#define CAIRN_KERNELS_CUDA_DECODE_GRAPHS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/ops/decode_graphs.h"

namespace cairn::cuda {

absl::StatusOr<std::unique_ptr<DecodeGraphs>> MakeDecodeGraphs(Context* context, const DecodeGraphs::Shape& shape);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_DECODE_GRAPHS_H_
