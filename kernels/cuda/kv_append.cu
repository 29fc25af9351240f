#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 128;

// One block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    KvAppendKernel(RowView<const T> k, RowView<const T> v, const int32_t* positions, PagedStep step,
                   const WorkItem* items) {
  const WorkItem item = items[blockIdx.x];
  const PagedSequence s = step.sequences[item.sequence];
  const int32_t slot = PagedStep::SlotOf(s, item.row), d = step.head_dim;
  if (slot < 0) return;  // a row that pads a recorded step
  uint8_t* block = step.Block(s, slot);
  for (int i = static_cast<int>(threadIdx.x); i < step.kv_heads * d; i += kThreads) {
    const int64_t at = step.InPlane(i / d, slot) * d + i % d;
    WriteAs(step.dtype, block, at, ToFloat(k.row(item.row)[i]));
    WriteAs(step.dtype, block + step.v_offset, at, ToFloat(v.row(item.row)[i]));
  }
  for (int h = static_cast<int>(threadIdx.x); h < step.kv_heads; h += kThreads) {
    *step.Position(s, h, slot) = positions[item.row];
    for (int plane = 0; plane < step.num_scores; ++plane) *step.Score(s, h, slot, plane) = 0;
  }
}

}  // namespace

void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences) {
  const WorkList work = UploadWork(context, sequences, 1, [](const SequenceRows&) { return true; });
  if (work.count == 0) return;
  const PagedStep step = UploadStep(context, sequences);
  const LaunchShape shape = {work.count, kThreads};
  WithType(k.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(KvAppendKernel<T>, context.cuda().stream(), shape, ViewRows<const T>(k), ViewRows<const T>(v),
                 static_cast<const int32_t*>(positions.data<int32_t>()), step, work.items);
  });
}

}  // namespace cairn::cuda
