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

// Of layers: row blockIdx.x is head `head` of layer `layer`.
struct LayerRow {
  int layer, head;
  __device__ __forceinline__ explicit LayerRow(const PagedStep& step)
      : layer(static_cast<int>(blockIdx.x) / step.kv_heads), head(static_cast<int>(blockIdx.x) % step.kv_heads) {}
};

__global__ void __launch_bounds__(kThreads) RecencyKernel(PagedStep step, int n, RowView<float> out) {
  const int i = Column();
  const int32_t num_slots = step.sequences[LayerRow(step).layer].num_slots;
  if (i < n) out.row(blockIdx.x)[i] = static_cast<float>(i) / static_cast<float>(num_slots);
}

__global__ void __launch_bounds__(kThreads)
    RandomKernel(PagedStep step, int window, const int32_t* layers, int32_t first_head, RowView<float> out) {
  const int i = Column();
  const LayerRow row(step);
  const PagedSequence s = step.sequences[row.layer];
  if (i >= s.num_slots - window) return;
  out.row(blockIdx.x)[i] = UniformOfToken(layers[row.layer], first_head + row.head, *step.Position(s, row.head, i));
}

__global__ void __launch_bounds__(kThreads)
    PoolKernel(RowView<const float> x, const int32_t* columns, int rows_per_layer, Pooling pooling, int kernel_size,
               RowView<float> out) {
  const int i = Column(), n = columns[blockIdx.x / static_cast<unsigned>(rows_per_layer)];
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
__global__ void __launch_bounds__(kThreads) DivideKernel(RowView<float> x, const int32_t* columns, int rows_per_layer) {
  float* row = x.row(blockIdx.x);
  const int n = columns[blockIdx.x / static_cast<unsigned>(rows_per_layer)];
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
    AddToRunningKernel(PagedStep step, int window, float factor, RowView<const float> added, RowView<float> scores) {
  const int i = Column();
  const LayerRow row(step);
  const PagedSequence s = step.sequences[row.layer];
  if (i >= s.num_slots) return;
  float& running = *step.Score(s, row.head, i);
  const float sum = running + factor * added.row(blockIdx.x)[i];
  running = sum;
  if (i < s.num_slots - window) scores.row(blockIdx.x)[i] = sum;
}

__global__ void __launch_bounds__(kThreads)
    DecayRunningKernel(PagedStep step, int window, float decay, RowView<const float> current, RowView<float> scores) {
  const int i = Column();
  const LayerRow row(step);
  const PagedSequence s = step.sequences[row.layer];
  if (i >= s.num_slots - window) return;
  float& running = *step.Score(s, row.head, i);
  const float decayed = decay * running, score = current.row(blockIdx.x)[i];
  running = decayed < score ? score : decayed;
  scores.row(blockIdx.x)[i] = running;
}

__global__ void __launch_bounds__(kThreads)
    AverageRunningKernel(PagedStep step, int window, int plane, const int32_t* windows, RowView<const float> current,
                         RowView<float> scores) {
  const int i = Column();
  const LayerRow row(step);
  const PagedSequence s = step.sequences[row.layer];
  if (i >= s.num_slots) return;
  const int newest = *step.Position(s, row.head, s.num_slots - 1);
  const int count = min(windows[row.layer], (newest - *step.Position(s, row.head, i)) / window + 1);
  float& running = *step.Score(s, row.head, i, plane);
  const float before = running;
  const float mean = before + (current.row(blockIdx.x)[i] - before) / static_cast<float>(count);
  running = mean;
  if (i < s.num_slots - window) scores.row(blockIdx.x)[i] = mean;
}

int RowsPerLayer(const Tensor& x, size_t layers) { return static_cast<int>(x.dim(0)) / static_cast<int>(layers); }

}  // namespace

void ReserveScoreMemory(Context& context, const KvBlockLayout& layout, int32_t slots, int64_t vectors) {
  context.SharedScratch(std::max(WindowScratchBytes(layout, slots, vectors), KeyScratchBytes(layout, slots)));
}

void SlotRecency(Context& context, absl::Span<const KvView> kv, const Tensor& out) {
  CAIRN_LAUNCH(RecencyKernel, context.cuda().stream(), ByColumns(out.dim(0), out.dim(1)), UploadCaches(context, kv),
               static_cast<int>(out.dim(1)), ViewRows<float>(out));
}

void RandomScores(Context& context, absl::Span<const KvView> kv, int window, absl::Span<const int32_t> layers,
                  int32_t first_kv_head, const Tensor& out) {
  CAIRN_LAUNCH(RandomKernel, context.cuda().stream(), ByColumns(out.dim(0), out.dim(1)), UploadCaches(context, kv),
               window, context.cuda().Upload(layers.data(), layers.size()), first_kv_head, ViewRows<float>(out));
}

void PoolSlots(Context& context, const Tensor& x, absl::Span<const int32_t> columns, Pooling pooling, int kernel_size,
               const Tensor& out) {
  CAIRN_LAUNCH(PoolKernel, context.cuda().stream(), ByColumns(x.dim(0), x.dim(1)), ViewRows<const float>(x),
               context.cuda().Upload(columns.data(), columns.size()), RowsPerLayer(x, columns.size()), pooling,
               kernel_size, ViewRows<float>(out));
}

void DivideByRowMax(Context& context, const Tensor& x, absl::Span<const int32_t> columns) {
  CAIRN_LAUNCH(DivideKernel, context.cuda().stream(), {static_cast<unsigned>(x.dim(0)), kThreads}, ViewRows<float>(x),
               context.cuda().Upload(columns.data(), columns.size()), RowsPerLayer(x, columns.size()));
}

void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out) {
  CAIRN_LAUNCH(MixKernel, context.cuda().stream(), ByColumns(x.dim(0), x.dim(1)), a, ViewRows<const float>(x), b,
               ViewRows<const float>(y), static_cast<int>(x.dim(1)), ViewRows<float>(out));
}

void AddToRunningScores(Context& context, absl::Span<const KvView> kv, int window, float factor, const Tensor& added,
                        const Tensor& scores) {
  CAIRN_LAUNCH(AddToRunningKernel, context.cuda().stream(), ByColumns(added.dim(0), added.dim(1)),
               UploadCaches(context, kv), window, factor, ViewRows<const float>(added), ViewRows<float>(scores));
}

void DecayRunningScores(Context& context, absl::Span<const KvView> kv, int window, float decay, const Tensor& current,
                        const Tensor& scores) {
  CAIRN_LAUNCH(DecayRunningKernel, context.cuda().stream(), ByColumns(scores.dim(0), scores.dim(1)),
               UploadCaches(context, kv), window, decay, ViewRows<const float>(current), ViewRows<float>(scores));
}

void AverageRunningScores(Context& context, absl::Span<const KvView> kv, int window, int plane,
                          absl::Span<const int32_t> windows, const Tensor& current, const Tensor& scores) {
  CAIRN_LAUNCH(AverageRunningKernel, context.cuda().stream(), ByColumns(current.dim(0), current.dim(1)),
               UploadCaches(context, kv), window, plane, context.cuda().Upload(windows.data(), windows.size()),
               ViewRows<const float>(current), ViewRows<float>(scores));
}

}  // namespace cairn::cuda
