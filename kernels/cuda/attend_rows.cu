#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/reduce.h"

namespace cairn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeadDim = 256;
constexpr int kDimsPerLane = kMaxHeadDim / kWarpSize;

template <typename T>
__global__ void __launch_bounds__(kWarps* kWarpSize) AttendRowsKernel(AttentionParams<T> p) {
  CAIRN_DYNAMIC_SHARED(float, q);  // [group, head_dim]
  const WorkItem item = p.items[blockIdx.x];
  const PagedSequence s = p.step.sequences[item.sequence];
  const int32_t d = p.step.head_dim, kv_head = static_cast<int32_t>(blockIdx.y);
  const int32_t begin = static_cast<int32_t>(blockIdx.z) * kSpanSlots;
  const int32_t end = min(begin + kSpanSlots, PagedStep::SlotOf(s, item.row) + 1);
  if (begin >= end) return;
  const T* row = p.q.row(item.row) + kv_head * p.group * d;
  for (int i = static_cast<int>(threadIdx.x); i < p.group * d; i += kWarps * kWarpSize) q[i] = ToFloat(row[i]);
  __syncthreads();

  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int32_t g = warp; g < p.group; g += kWarps) {
    float max = -INFINITY, sum = 0, weighted[kDimsPerLane] = {};
    for (int32_t tile = begin; tile < end; tile += kWarpSize) {
      const int32_t slot = tile + lane;
      bool visible = slot < end;
      if (visible && p.window > 0) {
        visible = *p.step.Position(s, kv_head, slot) > p.positions[item.row] - p.window;
      }
      float score = -INFINITY;
      if (visible) {
        const uint8_t* block = p.step.Block(s, slot);
        const int64_t at = p.step.InPlane(kv_head, slot) * d;
        float dot = 0;
        for (int32_t i = 0; i < d; ++i) dot += q[g * d + i] * ReadAs(p.step.dtype, block, at + i);
        score = dot * p.scale;
      }
      unsigned left = __ballot_sync(kAllLanes, visible);
      if (left == 0) continue;
      const float new_max = fmaxf(max, WarpMax(score));
      const float factor = expf(max - new_max), weight = visible ? expf(score - new_max) : 0;
      max = new_max;
      sum = sum * factor + WarpSum(weight);
#pragma unroll
      for (int j = 0; j < kDimsPerLane; ++j) weighted[j] *= factor;
      for (; left != 0; left &= left - 1) {
        const int from = __ffs(static_cast<int>(left)) - 1;
        const float p_from = __shfl_sync(kAllLanes, weight, from);
        const uint8_t* block = p.step.Block(s, tile + from) + p.step.v_offset;
        const int64_t at = p.step.InPlane(kv_head, tile + from) * d;
#pragma unroll
        for (int j = 0; j < kDimsPerLane; ++j) {
          const int32_t i = lane + j * kWarpSize;
          if (i < d) weighted[j] += p_from * ReadAs(p.step.dtype, block, at + i);
        }
      }
    }
    const int64_t part = (static_cast<int64_t>(blockIdx.x) * p.heads + kv_head * p.group + g) * p.spans + blockIdx.z;
    if (lane == 0) {
      p.max[part] = max;
      p.sum[part] = sum;
    }
#pragma unroll
    for (int j = 0; j < kDimsPerLane; ++j) {
      const int32_t i = lane + j * kWarpSize;
      if (i < d) p.weighted[part * d + i] = weighted[j];
    }
  }
}

// One block an item and head, one thread a dimension and, in each warp, one lane a span.
template <typename T>
__global__ void __launch_bounds__(kMaxHeadDim) MergeSpansKernel(AttentionParams<T> p) {
  const WorkItem item = p.items[blockIdx.x];
  const int32_t d = p.step.head_dim, head = static_cast<int32_t>(blockIdx.y), i = static_cast<int32_t>(threadIdx.x);
  const int lane = i % kWarpSize;
  const int32_t slots = PagedStep::SlotOf(p.step.sequences[item.sequence], item.row) + 1;
  const int32_t spans = (slots + kSpanSlots - 1) / kSpanSlots;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * p.heads + head) * p.spans;
  float max = -INFINITY, sum = 0, weighted = 0;
  for (int32_t begin = 0; begin < spans; begin += kWarpSize) {
    const int32_t count = min(spans - begin, kWarpSize);
    const float own_sum = lane < count ? p.sum[first + begin + lane] : 0;
    const float own_max = own_sum != 0 ? p.max[first + begin + lane] : -INFINITY;  // 0: nothing visible there
    const float new_max = fmaxf(max, WarpMax(own_max));
    if (new_max == -INFINITY) continue;
    const float factor = expf(max - new_max), own_factor = own_sum != 0 ? expf(own_max - new_max) : 0;
    sum = sum * factor + WarpSum(own_sum * own_factor);
    weighted *= factor;
#pragma unroll 4
    for (int32_t span = 0; span < count; ++span) {
      const float part = __shfl_sync(kAllLanes, own_factor, span);
      if (part != 0 && i < d) weighted += p.weighted[(first + begin + span) * d + i] * part;
    }
    max = new_max;
  }
  if (i < d) p.out.row(item.row)[head * d + i] = FromFloat<T>(weighted / sum);
}

}  // namespace

template <typename T>
void LaunchAttendRows(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  CAIRN_CHECK(p.step.head_dim <= kMaxHeadDim, "PagedAttention on a GPU: head_dim ", p.step.head_dim, ", at most ",
              kMaxHeadDim);
  const LaunchShape shape = {dim3(items, static_cast<unsigned>(p.step.kv_heads), static_cast<unsigned>(p.spans)),
                             kWarps * kWarpSize,
                             static_cast<size_t>(p.group) * static_cast<size_t>(p.step.head_dim) * sizeof(float)};
  CAIRN_LAUNCH(AttendRowsKernel<T>, stream, shape, p);
}

template <typename T>
void LaunchMergeSpans(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  const LaunchShape shape = {dim3(items, static_cast<unsigned>(p.heads)),
                             Blocks(p.step.head_dim, kWarpSize) * kWarpSize};
  CAIRN_LAUNCH(MergeSpansKernel<T>, stream, shape, p);
}

template void LaunchAttendRows<float>(const AttentionParams<float>&, unsigned, cudaStream_t);
template void LaunchAttendRows<__nv_bfloat16>(const AttentionParams<__nv_bfloat16>&, unsigned, cudaStream_t);
template void LaunchAttendRows<__half>(const AttentionParams<__half>&, unsigned, cudaStream_t);
template void LaunchMergeSpans<float>(const AttentionParams<float>&, unsigned, cudaStream_t);
template void LaunchMergeSpans<__nv_bfloat16>(const AttentionParams<__nv_bfloat16>&, unsigned, cudaStream_t);
template void LaunchMergeSpans<__half>(const AttentionParams<__half>&, unsigned, cudaStream_t);

}  // namespace cairn::cuda
