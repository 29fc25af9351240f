// The small steps between scores: rows of one number per slot.
#include <algorithm>

#include "kernels/core/token_hash.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/score_scratch.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// Most kernels: row blockIdx.x, kThreads elements of it.
__device__ __forceinline__ int Column() { return static_cast<int>(blockIdx.y * kThreads + threadIdx.x); }

LaunchShape ByColumns(int64_t rows, int64_t columns) {
  return {dim3(static_cast<unsigned>(rows), Blocks(columns, kThreads)), kThreads};
}

__global__ void __launch_bounds__(kThreads) RecencyKernel(int32_t num_slots, int n, RowView<float> out) {
  const int i = Column();
  if (i < n) out.row(blockIdx.x)[i] = static_cast<float>(i) / static_cast<float>(num_slots);
}

__global__ void __launch_bounds__(kThreads)
    RandomKernel(PagedStep step, int32_t layer, int32_t first_head, int columns, RowView<float> out) {
  const int i = Column(), head = static_cast<int>(blockIdx.x);
  if (i >= columns) return;
  out.row(head)[i] = UniformOfToken(layer, first_head + head, *step.Position(step.sequences[0], head, i));
}

__global__ void __launch_bounds__(kThreads)
    PoolKernel(RowView<const float> x, int n, Pooling pooling, int kernel_size, RowView<float> out) {
  const int i = Column();
  if (i >= n) return;
  const float* from = x.row(blockIdx.x);
  const int begin = max(0, i - kernel_size / 2), end = min(n, i + kernel_size / 2 + 1);
  float most = from[begin], sum = 0;
  for (int j = begin; j < end; ++j) {
    most = most < from[j] ? from[j] : most;
    sum += from[j];
  }
  out.row(blockIdx.x)[i] = pooling == Pooling::kMax ? most : sum / static_cast<float>(kernel_size);
}

// One block a row.
__global__ void __launch_bounds__(kThreads) DivideKernel(RowView<float> x, int n) {
  float* row = x.row(blockIdx.x);
  float most = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) most = fmaxf(most, row[i]);
  most = BlockMax<kThreads>(most);
  if (most == 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) row[i] /= most;
}

// out may be x or y: a thread writes where it alone has read.
__global__ void __launch_bounds__(kThreads)
    MixKernel(float a, RowView<const float> x, float b, RowView<const float> y, int n, RowView<float> out) {
  const int i = Column();
  if (i < n) out.row(blockIdx.x)[i] = a * x.row(blockIdx.x)[i] + b * y.row(blockIdx.x)[i];
}

__global__ void __launch_bounds__(kThreads)
    AddToRunningKernel(PagedStep step, int n, float factor, RowView<const float> added, int columns,
                       RowView<float> scores) {
  const int i = Column(), head = static_cast<int>(blockIdx.x);
  if (i >= n) return;
  float& running = *step.Score(step.sequences[0], head, i);
  const float sum = running + factor * added.row(head)[i];
  running = sum;
  if (i < columns) scores.row(head)[i] = sum;
}

__global__ void __launch_bounds__(kThreads)
    DecayRunningKernel(PagedStep step, float decay, RowView<const float> current, int columns, RowView<float> scores) {
  const int i = Column(), head = static_cast<int>(blockIdx.x);
  if (i >= columns) return;
  float& running = *step.Score(step.sequences[0], head, i);
  const float decayed = decay * running, score = current.row(head)[i];
  running = decayed < score ? score : decayed;
  scores.row(head)[i] = running;
}

}  // namespace

void ReserveScoreMemory(Context& context, const KvBlockLayout& layout, int32_t slots, int64_t vectors) {
  context.SharedScratch(std::max(WindowScratchBytes(layout, slots, vectors), KeyScratchBytes(layout, slots)));
}

void SlotRecency(Context& context, int32_t num_slots, const Tensor& out) {
  CAIRN_LAUNCH(RecencyKernel, context.cuda().stream(), ByColumns(out.dim(0), out.dim(1)), num_slots,
               static_cast<int>(out.dim(1)), ViewRows<float>(out));
}

void RandomScores(Context& context, const KvView& kv, int32_t layer, int32_t first_kv_head, const Tensor& out) {
  CAIRN_LAUNCH(RandomKernel, context.cuda().stream(), ByColumns(kv.layout.kv_heads, out.dim(1)),
               UploadCache(context, kv), layer, first_kv_head, static_cast<int>(out.dim(1)), ViewRows<float>(out));
}

void PoolSlots(Context& context, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out) {
  CAIRN_LAUNCH(PoolKernel, context.cuda().stream(), ByColumns(x.dim(0), x.dim(1)), ViewRows<const float>(x),
               static_cast<int>(x.dim(1)), pooling, kernel_size, ViewRows<float>(out));
}

void DivideByRowMax(Context& context, const Tensor& x) {
  CAIRN_LAUNCH(DivideKernel, context.cuda().stream(), {static_cast<unsigned>(x.dim(0)), kThreads}, ViewRows<float>(x),
               static_cast<int>(x.dim(1)));
}

void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out) {
  CAIRN_LAUNCH(MixKernel, context.cuda().stream(), ByColumns(x.dim(0), x.dim(1)), a, ViewRows<const float>(x), b,
               ViewRows<const float>(y), static_cast<int>(x.dim(1)), ViewRows<float>(out));
}

void AddToRunningScores(Context& context, const KvView& kv, float factor, const Tensor& added, const Tensor& scores) {
  CAIRN_LAUNCH(AddToRunningKernel, context.cuda().stream(), ByColumns(kv.layout.kv_heads, kv.num_slots),
               UploadCache(context, kv), static_cast<int>(kv.num_slots), factor, ViewRows<const float>(added),
               static_cast<int>(scores.dim(1)), ViewRows<float>(scores));
}

void DecayRunningScores(Context& context, const KvView& kv, float decay, const Tensor& current, const Tensor& scores) {
  CAIRN_LAUNCH(DecayRunningKernel, context.cuda().stream(), ByColumns(kv.layout.kv_heads, scores.dim(1)),
               UploadCache(context, kv), decay, ViewRows<const float>(current), static_cast<int>(scores.dim(1)),
               ViewRows<float>(scores));
}

}  // namespace cairn::cuda
