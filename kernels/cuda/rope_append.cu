#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;

// Block (row, KV head): the rotations, then every pair of the head and of its query heads.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RopeAppendKernel(RowView<T> q, RowView<const T> k, RowView<const T> v, const int32_t* positions,
                     const float* inv_freq, float attention_scale, PagedStep step, const WorkItem* items, int q_heads,
                     float* const* rings, int window) {
  CAIRN_DYNAMIC_SHARED(Rotation, rotations);  // [half]
  const WorkItem item = items[blockIdx.x];
  const PagedSequence s = step.sequences[item.sequence];
  const int32_t slot = PagedStep::SlotOf(s, item.row), position = positions[item.row];
  if (slot < 0) return;  // a row that pads a recorded step
  const int d = step.head_dim, half = d / 2, thread = static_cast<int>(threadIdx.x);
  const int head = static_cast<int>(blockIdx.y), group = q_heads / step.kv_heads;
  for (int i = thread; i < half; i += kThreads) rotations[i] = RotationOf(position, inv_freq[i], attention_scale);
  __syncthreads();

  // Of the rows of a step the last `window` alone, which have ring rows of their own.
  const bool records = window > 0 && item.row >= s.row_begin + s.num_rows - window;
  float* ring = records ? rings[item.sequence] + static_cast<int64_t>(position % window) * q_heads * d : nullptr;
  for (int i = thread; i < group * half; i += kThreads) {
    const int at = (head * group + i / half) * d + i % half;
    T* low = q.row(item.row) + at;
    const RotatedPair<T> pair = Rotate(low[0], low[half], rotations[i % half]);
    low[0] = pair.low;
    low[half] = pair.high;
    if (records) {
      ring[at] = ToFloat(pair.low);
      ring[at + half] = ToFloat(pair.high);
    }
  }
  uint8_t* block = step.Block(s, slot);
  const int64_t in_plane = step.InPlane(head, slot) * d;
  for (int i = thread; i < half; i += kThreads) {
    const T* low = k.row(item.row) + head * d + i;
    const RotatedPair<T> pair = Rotate(low[0], low[half], rotations[i]);
    WriteAs(step.dtype, block, in_plane + i, ToFloat(pair.low));
    WriteAs(step.dtype, block, in_plane + i + half, ToFloat(pair.high));
  }
  for (int i = thread; i < d; i += kThreads) {
    WriteAs(step.dtype, block + step.v_offset, in_plane + i, ToFloat(v.row(item.row)[head * d + i]));
  }
  if (thread == 0) {
    *step.Position(s, head, slot) = position;
    for (int plane = 0; plane < step.num_scores; ++plane) *step.Score(s, head, slot, plane) = 0;
  }
}

}  // namespace

void RopeAppend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                const Tensor& inv_freq, absl::Span<const SequenceRows> sequences, const QueryRings& rings,
                float attention_scale) {
  const WorkList work = UploadWork(context, sequences, 1, [](const SequenceRows&) { return true; });
  if (work.count == 0) return;
  const PagedStep step = UploadStep(context, sequences);
  float* const* uploaded = nullptr;
  if (rings.window > 0) {
    const StepTables* there = context.cuda().step_tables();
    uploaded = there != nullptr ? there->rings : context.cuda().Upload(rings.rings.data(), rings.rings.size());
  }
  const LaunchShape shape = {dim3(work.count, static_cast<unsigned>(step.kv_heads)), kThreads,
                             static_cast<size_t>(inv_freq.dim(0)) * sizeof(Rotation)};
  WithType(q.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(RopeAppendKernel<T>, context.cuda().stream(), shape, ViewRows<T>(q), ViewRows<const T>(k),
                 ViewRows<const T>(v), static_cast<const int32_t*>(positions.data<int32_t>()),
                 static_cast<const float*>(inv_freq.data<float>()), attention_scale, step, work.items,
                 static_cast<int>(q.dim(1)), uploaded, rings.window);
  });
}

}  // namespace cairn::cuda
