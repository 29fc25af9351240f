#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// Block (row, ring of the layer, layer); a row is `count` of T.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    WindowQueriesKernel(const WindowRing* rings, int window, int count, T* out) {
  const WindowRing ring = rings[blockIdx.z * gridDim.y + blockIdx.y];
  const int row = static_cast<int>(blockIdx.x), from_row = (ring.oldest + row) % window;
  const T* from = reinterpret_cast<const T*>(ring.rows) + static_cast<int64_t>(from_row) * count;
  T* to = out + ((static_cast<int64_t>(blockIdx.z) * window + row) * gridDim.y + blockIdx.y) * count;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) to[i] = from[i];
}

}  // namespace

void WindowQueries(Context& context, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out) {
  const unsigned per_layer = static_cast<unsigned>(rings_per_layer);
  const unsigned layers = static_cast<unsigned>(rings.size()) / per_layer;
  const int window = static_cast<int>(out.dim(0)) / static_cast<int>(layers);
  const LaunchShape shape = {dim3(static_cast<unsigned>(window), per_layer, layers), kThreads};
  const WindowRing* uploaded = context.cuda().Upload(rings.data(), rings.size());
  const auto launch = [&](auto piece) {
    using T = decltype(piece);
    CAIRN_LAUNCH(WindowQueriesKernel<T>, context.cuda().stream(), shape, uploaded, window,
                 static_cast<int>(out.row_elements()) / rings_per_layer / static_cast<int>(sizeof(T) / sizeof(float)),
                 static_cast<T*>(out.raw()));
  };
  const auto is_aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0; };
  const bool by_four = out.row_elements() / rings_per_layer % 4 == 0 && is_aligned(out.raw()) &&
                       std::all_of(rings.begin(), rings.end(), [&](const WindowRing& r) { return is_aligned(r.rows); });
  by_four ? launch(float4()) : launch(float());
}

}  // namespace cairn::cuda
