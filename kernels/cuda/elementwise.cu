#include <algorithm>
#include <type_traits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// x + y, where y is rounded to x's type before it is added.
template <typename T, typename U>
__device__ __forceinline__ T Added(T x, U y) {
  return FromFloat<T>(ToFloat(x) + ToFloat(FromFloat<T>(ToFloat(y))));
}

// What is added to the rows before they are normalised: nothing.
struct NoUpdate {};

// One block a norm: row blockIdx.x / per_row, part blockIdx.x % per_row of n elements. With an update x += update
// first.
template <typename T, typename U>
__global__ void __launch_bounds__(kThreads) RmsNormKernel(RowView<T> x, RowView<const U> update, const float* weight,
                                                          float eps, RowView<T> y, int n, int per_row) {
  const int64_t t = blockIdx.x / static_cast<unsigned>(per_row);
  const int64_t part = blockIdx.x % static_cast<unsigned>(per_row);
  T* in = x.row(t) + part * n;
  T* out = y.row(t) + part * n;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    if constexpr (!std::is_same_v<U, NoUpdate>) in[i] = Added<T>(in[i], update.row(t)[i]);
    const float value = ToFloat(in[i]);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(n) + eps);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    out[i] = FromFloat<T>(ToFloat(in[i]) * scale * weight[i]);
  }
}

// Eight neighbours at a time.
constexpr int kPack = 8;
template <typename T>
struct alignas(sizeof(T) * kPack < 16 ? sizeof(T) * kPack : 16) Pack {
  T at[kPack];
};

// The same where rows are whole packs, for long ones: a thread's part of the row stays in its registers.
constexpr int kWideThreads = 512, kMostPacks = 4;
constexpr int kLeastWide = 1024, kMostWide = kWideThreads * kMostPacks * kPack;  // elements of a row

template <typename T, typename U>
__global__ void __launch_bounds__(kWideThreads)
    WideRmsNormKernel(RowView<T> x, RowView<const U> update, const float* weight, float eps, RowView<T> y, int n) {
  const int packs = n / kPack, thread = static_cast<int>(threadIdx.x);
  Pack<T>* in = reinterpret_cast<Pack<T>*>(x.row(blockIdx.x));
  Pack<T>* out = reinterpret_cast<Pack<T>*>(y.row(blockIdx.x));
  Pack<T> own[kMostPacks];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kMostPacks; ++j) {
    const int i = thread + j * kWideThreads;
    if (i >= packs) break;
    own[j] = in[i];
    if constexpr (!std::is_same_v<U, NoUpdate>) {
      const Pack<U> term = reinterpret_cast<const Pack<U>*>(update.row(blockIdx.x))[i];
#pragma unroll
      for (int e = 0; e < kPack; ++e) own[j].at[e] = Added<T>(own[j].at[e], term.at[e]);
      in[i] = own[j];
    }
#pragma unroll
    for (int e = 0; e < kPack; ++e) squares += ToFloat(own[j].at[e]) * ToFloat(own[j].at[e]);
  }
  const float scale = 1.0f / sqrtf(BlockSum<kWideThreads>(squares) / static_cast<float>(n) + eps);
#pragma unroll
  for (int j = 0; j < kMostPacks; ++j) {
    const int i = thread + j * kWideThreads;
    if (i >= packs) break;
    const Pack<float> factors = reinterpret_cast<const Pack<float>*>(weight)[i];
#pragma unroll
    for (int e = 0; e < kPack; ++e) own[j].at[e] = FromFloat<T>(ToFloat(own[j].at[e]) * scale * factors.at[e]);
    out[i] = own[j];
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
__device__ __forceinline__ T Gated(T gate, T up) {
  const float x = ToFloat(gate);
  return FromFloat<T>(x / (1.0f + expf(-x)) * ToFloat(up));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) SwiGluKernel(RowView<const T> gate_up, RowView<T> y, int n) {
  const int i = Column();
  if (i >= n) return;
  const T* row = gate_up.row(blockIdx.x);
  y.row(blockIdx.x)[i] = Gated<T>(row[i], row[n + i]);
}

// The same where rows are whole packs: n packs.
template <typename T>
__global__ void __launch_bounds__(kThreads) WideSwiGluKernel(RowView<const T> gate_up, RowView<T> y, int n) {
  const int i = Column();
  if (i >= n) return;
  const Pack<T>* row = reinterpret_cast<const Pack<T>*>(gate_up.row(blockIdx.x));
  const Pack<T> gate = row[i], up = row[n + i];
  Pack<T> out;
#pragma unroll
  for (int e = 0; e < kPack; ++e) out.at[e] = Gated<T>(gate.at[e], up.at[e]);
  reinterpret_cast<Pack<T>*>(y.row(blockIdx.x))[i] = out;
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

// Whether rows may be read by packs.
bool HasPacks(const Tensor& x) {
  const size_t bytes = DTypeSize(x.dtype()) * kPack, alignment = std::min<size_t>(bytes, 16);
  return reinterpret_cast<uintptr_t>(x.raw()) % alignment == 0 && x.dim(x.rank() - 1) % kPack == 0 &&
         (x.rank() == 1 || static_cast<size_t>(x.row_stride()) * DTypeSize(x.dtype()) % alignment == 0);
}
bool IsWide(int n) { return n >= kLeastWide && n <= kMostWide; }

}  // namespace

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const int n = static_cast<int>(weight.dim(0)), per_row = static_cast<int>(x.row_elements() / n);
  const unsigned norms = static_cast<unsigned>(x.dim(0) * per_row);
  const float* factors = weight.data<float>();
  WithType(x.dtype(), [&](auto element) {
    using T = decltype(element);
    const cudaStream_t stream = context.cuda().stream();
    if (per_row == 1 && IsWide(n) && HasPacks(x) && HasPacks(y) && HasPacks(weight)) {
      CAIRN_LAUNCH((WideRmsNormKernel<T, NoUpdate>), stream, {norms, kWideThreads}, ViewRows<T>(x),
                   RowView<const NoUpdate>(), factors, eps, ViewRows<T>(y), n);
    } else {
      CAIRN_LAUNCH((RmsNormKernel<T, NoUpdate>), stream, {norms, kThreads}, ViewRows<T>(x), RowView<const NoUpdate>(),
                   factors, eps, ViewRows<T>(y), n, per_row);
    }
  });
}

void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed) {
  const int n = static_cast<int>(weight.dim(0));
  const unsigned rows = static_cast<unsigned>(hidden.dim(0));
  const float* factors = weight.data<float>();
  WithUpdate(hidden.dtype(), update.dtype(), [&](auto element, auto term) {
    using T = decltype(element);
    using U = decltype(term);
    const cudaStream_t stream = context.cuda().stream();
    if (IsWide(n) && HasPacks(hidden) && HasPacks(update) && HasPacks(weight) && HasPacks(normed)) {
      CAIRN_LAUNCH((WideRmsNormKernel<T, U>), stream, {rows, kWideThreads}, ViewRows<T>(hidden),
                   ViewRows<const U>(update), factors, eps, ViewRows<T>(normed), n);
    } else {
      CAIRN_LAUNCH((RmsNormKernel<T, U>), stream, {rows, kThreads}, ViewRows<T>(hidden), ViewRows<const U>(update),
                   factors, eps, ViewRows<T>(normed), n, 1);
    }
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
  const int n = static_cast<int>(y.dim(1));
  WithType(y.dtype(), [&](auto element) {
    using T = decltype(element);
    if (HasPacks(gate_up) && HasPacks(y)) {
      const LaunchShape shape = {dim3(static_cast<unsigned>(y.dim(0)), Blocks(n / kPack, kThreads)), kThreads};
      CAIRN_LAUNCH(WideSwiGluKernel<T>, context.cuda().stream(), shape, ViewRows<const T>(gate_up), ViewRows<T>(y),
                   n / kPack);
    } else {
      CAIRN_LAUNCH(SwiGluKernel<T>, context.cuda().stream(), ByColumns(y), ViewRows<const T>(gate_up), ViewRows<T>(y),
                   n);
    }
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
