#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// Block (row, ring).
__global__ void __launch_bounds__(kThreads)
    WindowQueriesKernel(const float* const* rings, int oldest, int window, int floats, float* out) {
  const int row = static_cast<int>(blockIdx.x), from_row = (oldest + row) % window;
  const float* from = rings[blockIdx.y] + static_cast<int64_t>(from_row) * floats;
  float* to = out + (static_cast<int64_t>(row) * gridDim.y + blockIdx.y) * floats;
  for (int i = static_cast<int>(threadIdx.x); i < floats; i += kThreads) to[i] = from[i];
}

}  // namespace

void WindowQueries(Context& context, absl::Span<const float* const> rings, int oldest, const Tensor& out) {
  const int window = static_cast<int>(out.dim(0));
  const LaunchShape shape = {dim3(static_cast<unsigned>(window), static_cast<unsigned>(rings.size())), kThreads};
  CAIRN_LAUNCH(WindowQueriesKernel, context.cuda().stream(), shape, context.cuda().Upload(rings.data(), rings.size()),
               oldest, window, static_cast<int>(out.row_elements() / static_cast<int64_t>(rings.size())),
               out.data<float>());
}

}  // namespace cairn::cuda
