#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// One block a norm: row blockIdx.x / per_row, part blockIdx.x % per_row of n elements.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(RowView<const T> x, const float* weight, float eps, RowView<T> y, int n, int per_row) {
  const int64_t t = blockIdx.x / static_cast<unsigned>(per_row);
  const int64_t part = blockIdx.x % static_cast<unsigned>(per_row);
  const T* in = x.row(t) + part * n;
  T* out = y.row(t) + part * n;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const float value = ToFloat(in[i]);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(n) + eps);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    out[i] = FromFloat<T>(ToFloat(in[i]) * scale * weight[i]);
  }
}

// x + y, where y is rounded to x's type before it is added.
template <typename T, typename U>
__device__ __forceinline__ T Added(T x, U y) {
  return FromFloat<T>(ToFloat(x) + ToFloat(FromFloat<T>(ToFloat(y))));
}

// One block a row: hidden += update, then RmsNormKernel's sums in its order. A thread
// reads again only what it has written itself.
template <typename T, typename U>
__global__ void __launch_bounds__(kThreads) AddRmsNormKernel(RowView<T> hidden, RowView<const U> update,
                                                             const float* weight, float eps, RowView<T> normed, int n) {
  T* stream = hidden.row(blockIdx.x);
  const U* term = update.row(blockIdx.x);
  T* out = normed.row(blockIdx.x);
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const T sum = Added<T>(stream[i], term[i]);
    stream[i] = sum;
    const float value = ToFloat(sum);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(n) + eps);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    out[i] = FromFloat<T>(ToFloat(stream[i]) * scale * weight[i]);
  }
}

// One block a row; a thread turns pair i of every head by the same angle.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RopeKernel(RowView<T> x, const int32_t* positions, const float* inv_freq, float scale, int heads, int half) {
  T* row = x.row(blockIdx.x);
  for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
    const Rotation rotation = RotationOf(positions[blockIdx.x], inv_freq[i], scale);
    for (int h = 0; h < heads; ++h) {
      T* low = row + h * 2 * half + i;
      const RotatedPair<T> pair = Rotate(low[0], low[half], rotation);
      low[0] = pair.low;
      low[half] = pair.high;
    }
  }
}

// Those below: row blockIdx.x, kThreads elements of it.
__device__ __forceinline__ int Column() { return static_cast<int>(blockIdx.y * kThreads + threadIdx.x); }

template <typename T>
__global__ void __launch_bounds__(kThreads) SwiGluKernel(RowView<const T> gate_up, RowView<T> y, int n) {
  const int i = Column();
  if (i >= n) return;
  const T* row = gate_up.row(blockIdx.x);
  const float gate = ToFloat(row[i]), up = ToFloat(row[n + i]);
  y.row(blockIdx.x)[i] = FromFloat<T>(gate / (1.0f + expf(-gate)) * up);
}

template <typename T, typename U>
__global__ void __launch_bounds__(kThreads) AddKernel(RowView<T> x, RowView<const U> y, int n) {
  const int i = Column();
  if (i >= n) return;
  T& sum = x.row(blockIdx.x)[i];
  sum = Added<T>(sum, y.row(blockIdx.x)[i]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) RoundKernel(RowView<const float> x, RowView<T> y, int n) {
  const int i = Column();
  if (i < n) y.row(blockIdx.x)[i] = FromFloat<T>(x.row(blockIdx.x)[i]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    TakeRowsKernel(RowView<const T> x, const int32_t* rows, RowView<T> y, int n) {
  const int i = Column();
  if (i < n) y.row(blockIdx.x)[i] = x.row(rows[blockIdx.x])[i];
}

__global__ void __launch_bounds__(kThreads)
    ScatterKernel(const int32_t* indices, const int32_t* values, int32_t* to, int n) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < n) to[indices[i]] = values[i];
}

LaunchShape ByColumns(const Tensor& tensor) {
  return {dim3(static_cast<unsigned>(tensor.dim(0)), Blocks(tensor.dim(1), kThreads)), kThreads};
}

// launch(T(), U()) for activations T and what is added to them, which may be float32.
template <typename Function>
void WithUpdate(DType activation, DType update, const Function& launch) {
  WithType(activation, [&](auto element) {
    if (update == DType::kFloat32) {
      launch(element, float());
    } else {
      launch(element, element);
    }
  });
}

}  // namespace

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const int n = static_cast<int>(weight.dim(0)), per_row = static_cast<int>(x.row_elements() / n);
  const LaunchShape shape = {static_cast<unsigned>(x.dim(0) * per_row), kThreads};
  WithType(x.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(RmsNormKernel<T>, context.cuda().stream(), shape, ViewRows<const T>(x),
                 static_cast<const float*>(weight.data<float>()), eps, ViewRows<T>(y), n, per_row);
  });
}

void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed) {
  const int n = static_cast<int>(weight.dim(0));
  const LaunchShape shape = {static_cast<unsigned>(hidden.dim(0)), kThreads};
  WithUpdate(hidden.dtype(), update.dtype(), [&](auto element, auto term) {
    using T = decltype(element);
    using U = decltype(term);
    CAIRN_LAUNCH((AddRmsNormKernel<T, U>), context.cuda().stream(), shape, ViewRows<T>(hidden),
                 ViewRows<const U>(update), static_cast<const float*>(weight.data<float>()), eps, ViewRows<T>(normed),
                 n);
  });
}

void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale) {
  const LaunchShape shape = {static_cast<unsigned>(x.dim(0)), kThreads};
  WithType(x.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(RopeKernel<T>, context.cuda().stream(), shape, ViewRows<T>(x),
                 static_cast<const int32_t*>(positions.data<int32_t>()),
                 static_cast<const float*>(inv_freq.data<float>()), attention_scale, static_cast<int>(x.dim(1)),
                 static_cast<int>(inv_freq.dim(0)));
  });
}

void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y) {
  WithType(y.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(SwiGluKernel<T>, context.cuda().stream(), ByColumns(y), ViewRows<const T>(gate_up), ViewRows<T>(y),
                 static_cast<int>(y.dim(1)));
  });
}

void AddInPlace(Context& context, const Tensor& x, const Tensor& y) {
  WithUpdate(x.dtype(), y.dtype(), [&](auto element, auto update) {
    using T = decltype(element);
    using U = decltype(update);
    CAIRN_LAUNCH((AddKernel<T, U>), context.cuda().stream(), ByColumns(x), ViewRows<T>(x), ViewRows<const U>(y),
                 static_cast<int>(x.dim(1)));
  });
}

void RoundToActivation(Context& context, const Tensor& x, const Tensor& y) {
  WithType(y.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(RoundKernel<T>, context.cuda().stream(), ByColumns(y), ViewRows<const float>(x), ViewRows<T>(y),
                 static_cast<int>(y.dim(1)));
  });
}

void TakeRows(Context& context, const Tensor& x, absl::Span<const int32_t> rows, const Tensor& y) {
  const int32_t* uploaded = context.cuda().Upload(rows.data(), rows.size());
  WithType(y.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(TakeRowsKernel<T>, context.cuda().stream(), ByColumns(y), ViewRows<const T>(x), uploaded,
                 ViewRows<T>(y), static_cast<int>(y.dim(1)));
  });
}

void ScatterInts(Context& context, absl::Span<const int32_t> indices, absl::Span<const int32_t> values,
                 const Tensor& to) {
  const int32_t* from = context.cuda().Upload(indices.data(), indices.size());
  const int32_t* what = context.cuda().Upload(values.data(), values.size());
  const int n = static_cast<int>(indices.size());
  CAIRN_LAUNCH(ScatterKernel, context.cuda().stream(), {Blocks(n, kThreads), kThreads}, from, what, to.data<int32_t>(),
               n);
}

}  // namespace cairn::cuda
