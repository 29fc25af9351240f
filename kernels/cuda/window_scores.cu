// The attention that the window's queries pay to the slots: logits, each query's softmax, and the sums over queries and
// heads. In scratch memory there is a logit for each query vector and slot of some heads; every number of it is made by
// one thread in one order, so that a head's scores depend on that head alone.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/fixed_point.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/score_scratch.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

struct WindowParams {
  PagedStep step;
  RowView<const float> queries;  // [w, heads * group * d]
  int32_t group, window;
  int32_t slots;       // logits of a vector, from slot 0
  int32_t first_head;  // of those that the launch works on
  float scale;         // 1 / sqrt(d)
  float* logits;       // [heads, w * group, stride], vector v = r * group + g
  int64_t stride;

  __device__ __forceinline__ int32_t vectors() const { return window * group; }
  // Of the launch's blockIdx.y-th head.
  __device__ __forceinline__ float* Logits(int32_t vector) const {
    return logits + (static_cast<int64_t>(blockIdx.y) * vectors() + vector) * stride;
  }
};

constexpr int kLogitThreads = 128;
constexpr int kVectorsPerWarp = 4;
constexpr int kVectorsAtOnce = kVectorsPerWarp * kLogitThreads / kWarpSize;

// Block (32 slots, head): a lane a slot, four query vectors a warp at a time.
__global__ void __launch_bounds__(kLogitThreads) LogitsKernel(WindowParams p) {
  CAIRN_DYNAMIC_SHARED(float, keys);  // [32][d + 1], then queries [16][d]
  const PagedSequence s = p.step.sequences[0];
  const int32_t d = p.step.head_dim, head = p.first_head + static_cast<int32_t>(blockIdx.y);
  float* const queries = keys + kWarpSize * (d + 1);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kWarpSize, slot = begin + lane;
  for (int i = thread; i < kWarpSize * d; i += kLogitThreads) {
    const int32_t from = min(begin + i / d, p.slots - 1);  // behind the last slot: never looked at
    keys[i / d * (d + 1) + i % d] = ReadAs(p.step.dtype, p.step.Block(s, from), p.step.InPlane(head, from) * d + i % d);
  }
  for (int32_t first = 0; first < p.vectors(); first += kVectorsAtOnce) {
    __syncthreads();  // before the queries are replaced
    for (int i = thread; i < kVectorsAtOnce * d; i += kLogitThreads) {
      const int32_t v = first + i / d, g = v % p.group;
      queries[i] = v < p.vectors() ? p.queries.row(v / p.group)[(head * p.group + g) * d + i % d] * p.scale : 0;
    }
    __syncthreads();
    const float* key = keys + lane * (d + 1);
    const float* own = queries + warp * kVectorsPerWarp * d;
    float dots[kVectorsPerWarp] = {};
    for (int i = 0; i < d; ++i) {
      const float k = key[i];
#pragma unroll
      for (int j = 0; j < kVectorsPerWarp; ++j) dots[j] += own[j * d + i] * k;
    }
    if (slot >= p.slots) continue;
#pragma unroll
    for (int j = 0; j < kVectorsPerWarp; ++j) {
      const int32_t v = first + warp * kVectorsPerWarp + j;
      if (v < p.vectors()) p.Logits(v)[slot] = dots[j];
    }
  }
}

constexpr int kThreads = 256;

// Block (vector, head): logits become probabilities over the slots that the vector may see, zero beyond. With
// kImportance block (query, head): the group's largest logits, in place of those of its first head, become
// probabilities over all slots, divided by w.
template <bool kImportance>
__global__ void __launch_bounds__(kThreads) SoftmaxKernel(WindowParams p) {
  const int thread = static_cast<int>(threadIdx.x);
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  float* x = p.Logits(kImportance ? row * p.group : row);
  const int32_t visible = kImportance ? p.slots : p.slots - p.window + row / p.group + 1;
  float most = -INFINITY;
  for (int32_t i = thread; i < visible; i += kThreads) {
    if constexpr (kImportance) {
      float largest = x[i];
      for (int32_t g = 1; g < p.group; ++g) largest = fmaxf(largest, x[g * p.stride + i]);
      x[i] = largest;
    }
    most = fmaxf(most, x[i]);
  }
  most = BlockMax<kThreads>(most);
  float sum = 0;
  for (int32_t i = thread; i < visible; i += kThreads) {
    const float e = expf(x[i] - most);
    x[i] = e;
    sum += e;
  }
  sum = BlockSum<kThreads>(sum);
  const float factor = 1.0f / (kImportance ? sum * static_cast<float>(p.window) : sum);
  for (int32_t i = thread; i < p.slots; i += kThreads) x[i] = i < visible ? x[i] * factor : 0;
}

// Block (slots, head).
__global__ void __launch_bounds__(kThreads) SumQueriesKernel(WindowParams p, RowView<float> out) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= p.slots) return;
  float sum = 0;
  for (int32_t r = 0; r < p.window; ++r) sum += p.Logits(r * p.group)[i];
  out.row(p.first_head + blockIdx.y)[i] = sum;
}

// Block (slots, head).
__global__ void __launch_bounds__(kThreads)
    ReduceHeadsKernel(WindowParams p, WindowReduce reduce, int32_t columns, RowView<float> out) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= columns) return;
  float result = 0;
  if (reduce == WindowReduce::kMeanOfMaxima) {
    for (int32_t r = 0; r < p.window; ++r) {
      float most = 0;
      for (int32_t g = 0; g < p.group; ++g) most = fmaxf(most, p.Logits(r * p.group + g)[i]);
      result += most * (1.0f / static_cast<float>(p.window));
    }
  } else {
    int64_t fixed = 0;
    for (int32_t g = 0; g < p.group; ++g) {
      float sum = 0;
      for (int32_t r = 0; r < p.window; ++r) sum += p.Logits(r * p.group + g)[i];
      result = fmaxf(result, sum);
      fixed += ToFixedPoint(sum);
    }
    if (reduce != WindowReduce::kMaxOfHeads) {
      const double heads = reduce == WindowReduce::kMeanOfHeads ? p.group : 1;
      result = static_cast<float>(static_cast<double>(fixed) / (kFixedPointOne * heads));
    }
  }
  out.row(p.first_head + blockIdx.y)[i] = result;
}

// Logits of a head, and heads at work together: as many as 4 MB hold (one head may take more).
constexpr int64_t kLogitsAtOnce = int64_t{1} << 20;
int64_t StrideFor(int32_t slots) { return (slots + kWarpSize - 1) / kWarpSize * kWarpSize; }
int32_t HeadsAtOnce(int64_t per_head, int32_t heads) {
  return static_cast<int32_t>(std::clamp<int64_t>(kLogitsAtOnce / per_head, 1, heads));
}

// finish(params, heads) after the logits of so many heads.
template <typename Finish>
void ForHeadLogits(Context& context, const KvView& kv, const Tensor& queries, int32_t slots, const Finish& finish) {
  const int32_t heads = kv.layout.kv_heads, d = kv.layout.head_dim;
  WindowParams p = {};
  p.step = UploadCache(context, kv);
  p.queries = ViewRows<const float>(queries);
  p.window = static_cast<int32_t>(queries.dim(0));
  p.group = static_cast<int32_t>(queries.dim(1)) / heads;
  p.slots = slots;
  p.scale = 1.0f / std::sqrt(static_cast<float>(d));
  p.stride = StrideFor(slots);
  const int64_t per_head = int64_t{p.window} * p.group * p.stride;
  const int32_t at_once = HeadsAtOnce(per_head, heads);
  p.logits = static_cast<float*>(context.SharedScratch(static_cast<size_t>(at_once * per_head) * sizeof(float)));
  const size_t shared =
      (kWarpSize * static_cast<size_t>(d + 1) + kVectorsAtOnce * static_cast<size_t>(d)) * sizeof(float);
  for (; p.first_head < heads; p.first_head += at_once) {
    const unsigned count = static_cast<unsigned>(std::min(at_once, heads - p.first_head));
    const LaunchShape shape = {dim3(Blocks(slots, kWarpSize), count), kLogitThreads, shared};
    CAIRN_LAUNCH(LogitsKernel, context.cuda().stream(), shape, p);
    finish(p, count);
  }
}

}  // namespace

size_t WindowScratchBytes(const KvBlockLayout& layout, int32_t slots, int64_t vectors) {
  // Fewer slots let more heads work together, within the same limits.
  const int64_t per_head = vectors * StrideFor(slots);
  return static_cast<size_t>(std::max(per_head, std::min(per_head * layout.kv_heads, kLogitsAtOnce))) * sizeof(float);
}

void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out) {
  const int32_t m = static_cast<int32_t>(out.dim(1));
  ForHeadLogits(context, kv, queries, m, [&](const WindowParams& p, unsigned heads) {
    const LaunchShape by_query = {dim3(static_cast<unsigned>(p.window), heads), kThreads};
    CAIRN_LAUNCH(SoftmaxKernel<true>, context.cuda().stream(), by_query, p);
    const LaunchShape by_slot = {dim3(Blocks(m, kThreads), heads), kThreads};
    CAIRN_LAUNCH(SumQueriesKernel, context.cuda().stream(), by_slot, p, ViewRows<float>(out));
  });
}

void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce,
                     const Tensor& out) {
  const int32_t columns = static_cast<int32_t>(out.dim(1));
  ForHeadLogits(context, kv, queries, kv.num_slots, [&](const WindowParams& p, unsigned heads) {
    const LaunchShape by_vector = {dim3(static_cast<unsigned>(p.window * p.group), heads), kThreads};
    CAIRN_LAUNCH(SoftmaxKernel<false>, context.cuda().stream(), by_vector, p);
    const LaunchShape by_slot = {dim3(Blocks(columns, kThreads), heads), kThreads};
    CAIRN_LAUNCH(ReduceHeadsKernel, context.cuda().stream(), by_slot, p, reduce, columns, ViewRows<float>(out));
  });
}

}  // namespace cairn::cuda
