// Rows that come alone (decode): the query vectors of one KV head, at most 16, against a span of its slots; each of
// four warps takes 16 slots of every tile of 64, and their sums are joined at the end. Partial results, for a merge.
#include "kernels/cuda/tile.h"

namespace cairn::cuda {
namespace {

constexpr int kVectors = kDecodeVectors;

template <int D>
struct WarpSums {  // of one warp, in shared memory
  float max[kVectors], sum[kVectors];
  float weighted[kVectors][D];
};

template <int D, typename T, typename C>
__global__ void __launch_bounds__(kTileThreads) DecodeKernel(AttentionParams<T> p) {
  CAIRN_DYNAMIC_SHARED(T, shared);  // keys and values; at the end, the warps' sums
  CAIRN_SHARED_ALIGNED(16, T, queries, [kVectors * kTileStride<D>]);
  const TileStages<D, T, C> tile_stages(shared);
  const WorkItem item = p.items[blockIdx.x];
  const PagedSequence s = p.step.sequences[item.sequence];
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y);
  const int32_t begin = static_cast<int32_t>(blockIdx.z) * kSpanSlots;
  const int32_t end = min(begin + kSpanSlots, PagedStep::SlotOf(s, item.row) + 1);
  if (begin >= end) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;

  const int32_t tiles = (end - begin + kTileSlots - 1) / kTileSlots;
  tile_stages.Fetch(p.step, s, kv_head, begin, end, 0);
  const T* row = p.q.row(item.row) + kv_head * p.group * D;
  for (int i = thread; i < kVectors * D; i += kTileThreads) {
    queries[i / D * kTileStride<D> + i % D] = i / D < p.group ? row[i] : FromFloat<T>(0);
  }
  __syncthreads();
  unsigned q[D / 16][4];
  LoadQueries<D>(queries, q);
  const int32_t oldest = p.window > 0 ? p.positions[item.row] - p.window : 0;

  SoftmaxState<D> state;
  for (int32_t tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2, first = begin + tile * kTileSlots;
    if (tile + 1 < tiles) {
      tile_stages.Fetch(p.step, s, kv_head, first + kTileSlots, end, stage ^ 1);
      CopyAsyncWait<1>();
    } else {
      CopyAsyncWait<0>();
    }
    __syncthreads();
    const int own = tile_stages.Rows(stage) + warp * 16 * kTileStride<D>;
    float scores[2][4];
    Scores<D>(q, tile_stages.keys + own, scores);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int32_t slot = first + warp * 16 + n * 8 + lane % 4 * 2 + e % 2;
        bool visible = slot < end;
        if (visible && p.window > 0) visible = *p.step.Position(s, kv_head, slot) > oldest;
        scores[n][e] = visible ? scores[n][e] * (p.scale * kLog2E) : -INFINITY;
      }
    }
    state.Update(scores);
    AddWeighted<D>(scores, tile_stages.values + own, state.weighted);
    __syncthreads();  // before the stage is fetched into again, or the sums are laid over it
  }
  state.Finish();

  WarpSums<D>* const sums = reinterpret_cast<WarpSums<D>*>(shared);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int vector = lane / 4 + 8 * r;
    if (lane % 4 == 0) {
      sums[warp].max[vector] = state.max[r];
      sums[warp].sum[vector] = state.sum[r];
    }
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      sums[warp].weighted[vector][i * 8 + lane % 4 * 2] = state.weighted[i][2 * r];
      sums[warp].weighted[vector][i * 8 + lane % 4 * 2 + 1] = state.weighted[i][2 * r + 1];
    }
  }
  __syncthreads();
  for (int i = thread; i < p.group * D; i += kTileThreads) {
    const int vector = i / D, column = i % D;
    float max = -INFINITY, sum = 0, weighted = 0;
    for (int w = 0; w < kTileWarps; ++w) max = fmaxf(max, sums[w].max[vector]);
    const float base = max == -INFINITY ? 0 : max;
    for (int w = 0; w < kTileWarps; ++w) {
      const float factor = Exp2(sums[w].max[vector] - base);
      sum += factor * sums[w].sum[vector];
      weighted += factor * sums[w].weighted[vector][column];
    }
    const int64_t part =
        (static_cast<int64_t>(blockIdx.x) * p.heads + kv_head * p.group + vector) * p.spans + blockIdx.z;
    p.weighted[part * D + column] = weighted;
    if (column == 0) {
      p.max[part] = max * kLn2;
      p.sum[part] = sum;
    }
  }
}

template <int D, typename T, typename C>
void LaunchDecodeOf(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  constexpr size_t kStages = TileStages<D, T, C>::kBytes, kSums = kTileWarps * sizeof(WarpSums<D>);
  static_assert(kSums <= kStages);
  const LaunchShape shape = {dim3(items, static_cast<unsigned>(p.step.kv_heads), static_cast<unsigned>(p.spans)),
                             kTileThreads, kStages};
  CAIRN_LAUNCH((DecodeKernel<D, T, C>), stream, shape, p);
}

}  // namespace

template <typename T>
void LaunchDecode(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  ForTileTypes<T>(p.step.head_dim, p.step.dtype,
                  [&]<int D, typename C>() { LaunchDecodeOf<D, T, C>(p, items, stream); });
}

template void LaunchDecode<__nv_bfloat16>(const AttentionParams<__nv_bfloat16>&, unsigned, cudaStream_t);
template void LaunchDecode<__half>(const AttentionParams<__half>&, unsigned, cudaStream_t);

}  // namespace cairn::cuda
