#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

struct Table {
  const uint8_t* data;
  DType dtype;
  int64_t stride;  // elements
  int64_t row_begin, rows;
};

// One block a token.
template <typename T>
__global__ void __launch_bounds__(kThreads) EmbeddingKernel(const int32_t* ids, Table table, RowView<T> y, int n) {
  const int64_t row = ids[blockIdx.x] - table.row_begin;
  const bool own = row >= 0 && row < table.rows;
  T* out = y.row(blockIdx.x);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    out[i] = FromFloat<T>(own ? ReadAs(table.dtype, table.data, row * table.stride + i) : 0.0f);
  }
}

}  // namespace

void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y) {
  const Table rows = {table.data(), table.dtype(), table.row_stride(), row_begin, table.rows()};
  const LaunchShape shape = {static_cast<unsigned>(ids.dim(0)), kThreads};
  WithType(y.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(EmbeddingKernel<T>, context.cuda().stream(), shape, static_cast<const int32_t*>(ids.data<int32_t>()),
                 rows, ViewRows<T>(y), static_cast<int>(y.dim(1)));
  });
}

}  // namespace cairn::cuda
