// The product with weights in E4M3: cuBLASLt multiplies by the scales where it can (sm_90, multiples of 16, a 16-bit
// bias); where it cannot, it makes plain sums of sizes rounded up to 16, and a kernel here does the rest.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/float8_matmul.h"
#include "kernels/cuda/storage.h"
#include "kernels/ops/quantize.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;
// Of which sums are kept: a multiple of 16.
constexpr int64_t kRowsAtOnce = 256;

// Row blockIdx.x, kThreads elements of it.
template <typename T>
__global__ void __launch_bounds__(kThreads) ScaleKernel(RowView<const float> sums, const float* x_scales,
                                                        const float* w_scales, const T* bias, RowView<T> y, int n) {
  const int i = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (i >= n) return;
  float value = sums.row(blockIdx.x)[i] * w_scales[i] * x_scales[blockIdx.x];
  if (bias != nullptr) value += ToFloat(bias[i]);
  y.row(blockIdx.x)[i] = FromFloat<T>(value);
}

size_t Aligned(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) / 256 * 256; }

// The context's scratch memory, in parts.
struct Scratch {
  Tensor codes, scales;  // of x, and of rows of zeros behind it
  float* sums;           // [rows at once, columns of y padded]
};

size_t ScratchBytes(const PackedMatrix& w, int64_t rows) {
  const int64_t sums = std::min(rows, kRowsAtOnce) * Float8Padded(w.rows());
  return Aligned(rows * w.row_stride()) + Aligned(rows * static_cast<int64_t>(sizeof(float))) +
         static_cast<size_t>(sums) * sizeof(float);
}

// `rows`: a multiple of 16.
Scratch TakeScratch(Context& context, const PackedMatrix& w, int64_t rows) {
  uint8_t* memory = static_cast<uint8_t*>(context.SharedScratch(ScratchBytes(w, rows)));
  uint8_t* const scales = memory + Aligned(rows * w.row_stride());
  uint8_t* const sums = scales + Aligned(rows * static_cast<int64_t>(sizeof(float)));
  return {.codes = Tensor(memory, DType::kFloat8E4M3, {rows, w.row_stride()}, context.device()),
          .scales = Tensor(scales, DType::kFloat32, {rows}, context.device()),
          .sums = reinterpret_cast<float*>(sums)};
}

}  // namespace

void Float8MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y,
                  const MatMulOptions& options) {
  MatMulPlans& plans = context.cuda().matmul_plans();
  cudaStream_t stream = context.cuda().stream();
  const int64_t m = x.dim(0), n = w.rows(), k = w.row_stride(), padded_n = Float8Padded(n);
  const Scratch scratch = TakeScratch(context, w, Float8Padded(m));
  cuda::QuantizeRows(context, x, scratch.codes, scratch.scales);
  MatMulProblem problem = {.m = m,
                           .n = n,
                           .k = k,
                           .x_stride = k,
                           .w_stride = k,
                           .y_stride = y.row_stride(),
                           .input = DType::kFloat8E4M3,
                           .output = y.dtype(),
                           .x = scratch.codes.raw(),
                           .w = w.data(),
                           .bias = options.bias.raw(),
                           .y = y.raw(),
                           .x_scales = scratch.scales.data<float>(),
                           .w_scales = w.scales()};
  const bool bias_fits = problem.bias == nullptr || problem.output != DType::kFloat32;
  if (bias_fits && plans.Takes(problem)) return plans.Run(problem, stream);

  problem.n = padded_n;
  problem.y_stride = padded_n;
  problem.output = DType::kFloat32;
  problem.y = scratch.sums;
  problem.bias = nullptr;
  problem.x_scales = problem.w_scales = nullptr;
  for (int64_t begin = 0; begin < m; begin += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, m - begin);
    problem.m = Float8Padded(rows);
    problem.x = scratch.codes.Rows(begin, begin + problem.m).raw();
    plans.Run(problem, stream);
    WithType(y.dtype(), [&](auto element) {
      using T = decltype(element);
      const LaunchShape shape = {dim3(static_cast<unsigned>(rows), Blocks(n, kThreads)), kThreads};
      CAIRN_LAUNCH(ScaleKernel<T>, stream, shape, (RowView<const float>{scratch.sums, padded_n}),
                   static_cast<const float*>(scratch.scales.data<float>() + begin), w.scales(),
                   static_cast<const T*>(options.bias.raw()), ViewRows<T>(y.Rows(begin, begin + rows)),
                   static_cast<int>(n));
    });
  }
}

void ReserveMatMul(Context& context, const PackedMatrix& w, int64_t max_rows) {
  if (w.dtype() == DType::kFloat8E4M3) context.SharedScratch(ScratchBytes(w, Float8Padded(max_rows)));
}

}  // namespace cairn::cuda
