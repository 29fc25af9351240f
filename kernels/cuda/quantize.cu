#include "kernels/core/float8.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCodesAtOnce = 4;  // written in one word

// One block a row of codes; those behind the last row of x are zero.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    QuantizeKernel(RowView<const T> x, int rows, int n, RowView<uint8_t> codes, int padded, float* scales) {
  const int row = static_cast<int>(blockIdx.x);
  const T* in = x.row(row);
  const int own = row < rows ? n : 0;
  float largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < own; i += kThreads) {
    largest = fmaxf(largest, fabsf(ToFloat(in[i])));  // of a NaN and a number, the number
  }
  largest = fmaxf(BlockMax<kThreads>(largest), kLeastQuantizedRow);
  const float inverse = kMaxFloat8 / largest;
  if (threadIdx.x == 0) scales[row] = row < rows ? largest / kMaxFloat8 : 0.0f;
  unsigned* out = reinterpret_cast<unsigned*>(codes.row(row));
  for (int word = static_cast<int>(threadIdx.x); word < padded / kCodesAtOnce; word += kThreads) {
    unsigned packed = 0;
#pragma unroll
    for (int j = 0; j < kCodesAtOnce; ++j) {
      const int i = word * kCodesAtOnce + j;
      const float value = i < own ? ToFloat(in[i]) * inverse : 0.0f;
      packed |= static_cast<unsigned>(__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3)) << (8 * j);
    }
    out[word] = packed;
  }
}

}  // namespace

void QuantizeRows(Context& context, const Tensor& x, const Tensor& codes, const Tensor& scales) {
  const LaunchShape shape = {static_cast<unsigned>(codes.dim(0)), kThreads};
  WithType(x.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(QuantizeKernel<T>, context.cuda().stream(), shape, ViewRows<const T>(x), static_cast<int>(x.dim(0)),
                 static_cast<int>(x.dim(1)), ViewRows<uint8_t>(codes), static_cast<int>(codes.dim(1)),
                 scales.data<float>());
  });
}

}  // namespace cairn::cuda
