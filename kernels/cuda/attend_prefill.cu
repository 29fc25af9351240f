// Rows that come together: 64 query vectors of one KV head at a time (rows times the group's heads), four warps of 16,
// over tiles of 64 slots, the next one on its way while one is worked on.
#include "kernels/cuda/tile.h"

namespace cairn::cuda {
namespace {

constexpr int kVectors = kPrefillVectors;

// A query vector of the item: its row, the slots it sees, its position; nothing where the item has fewer.
struct Vector {
  int32_t row = 0, head = 0, end = 0, position = 0;
};

template <typename T>
__device__ __forceinline__ Vector VectorAt(const AttentionParams<T>& p, const WorkItem& item, const PagedSequence& s,
                                           int32_t kv_head, int index) {
  Vector v;
  v.row = item.row + index / p.group;
  v.head = kv_head * p.group + index % p.group;
  const bool valid = index < kVectors / p.group * p.group && v.row < s.row_begin + s.num_rows;
  v.end = valid ? PagedStep::SlotOf(s, v.row) + 1 : 0;
  if (valid && p.window > 0) v.position = p.positions[v.row];
  return v;
}

template <int D, typename T, typename C>
__global__ void __launch_bounds__(kTileThreads) PrefillKernel(AttentionParams<T> p) {
  CAIRN_DYNAMIC_SHARED(T, shared);  // queries, then keys and values
  T* const queries = shared;
  const TileStages<D, T, C> tile_stages(queries + kTileElements<D>);
  const WorkItem item = p.items[blockIdx.x];
  const PagedSequence s = p.step.sequences[item.sequence];
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;

  for (int i = thread; i < kVectors * D; i += kTileThreads) {
    const Vector v = VectorAt(p, item, s, kv_head, i / D);
    queries[i / D * kTileStride<D> + i % D] = v.end > 0 ? p.q.row(v.row)[v.head * D + i % D] : FromFloat<T>(0);
  }
  const int32_t last_row = min(item.row + kVectors / p.group, s.row_begin + s.num_rows) - 1;
  const int32_t end = PagedStep::SlotOf(s, last_row) + 1, tiles = (end + kTileSlots - 1) / kTileSlots;
  tile_stages.Fetch(p.step, s, kv_head, 0, end, 0);
  __syncthreads();
  unsigned q[D / 16][4];
  LoadQueries<D>(queries + warp * 16 * kTileStride<D>, q);
  const Vector own[2] = {VectorAt(p, item, s, kv_head, warp * 16 + lane / 4),
                         VectorAt(p, item, s, kv_head, warp * 16 + lane / 4 + 8)};

  SoftmaxState<D> state;
  for (int32_t tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2, begin = tile * kTileSlots;
    if (tile + 1 < tiles) {
      tile_stages.Fetch(p.step, s, kv_head, begin + kTileSlots, end, stage ^ 1);
      CopyAsyncWait<1>();
    } else {
      CopyAsyncWait<0>();
    }
    __syncthreads();
    const int rows = tile_stages.Rows(stage);
    const T* k = tile_stages.keys + rows;
    const T* v = tile_stages.values + rows;
    float scores[kTileSlots / 8][4];
#pragma unroll
    for (int n = 0; n < kTileSlots / 16; ++n) {
      float pair[2][4];
      Scores<D>(q, k + n * 16 * kTileStride<D>, pair);
#pragma unroll
      for (int i = 0; i < 8; ++i) scores[2 * n + i / 4][i % 4] = pair[i / 4][i % 4];
    }
#pragma unroll
    for (int n = 0; n < kTileSlots / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Vector& vector = own[e / 2];
        const int32_t slot = begin + n * 8 + lane % 4 * 2 + e % 2;
        bool visible = slot < vector.end;
        if (visible && p.window > 0) visible = *p.step.Position(s, kv_head, slot) > vector.position - p.window;
        scores[n][e] = visible ? scores[n][e] * (p.scale * kLog2E) : -INFINITY;
      }
    }
    state.Update(scores);
#pragma unroll
    for (int n = 0; n < kTileSlots / 16; ++n) {
      float pair[2][4];
#pragma unroll
      for (int i = 0; i < 8; ++i) pair[i / 4][i % 4] = scores[2 * n + i / 4][i % 4];
      AddWeighted<D>(pair, v + n * 16 * kTileStride<D>, state.weighted);
    }
    __syncthreads();  // before the stage is fetched into again
  }
  state.Finish();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (own[r].end == 0) continue;
    T* out = p.out.row(own[r].row) + own[r].head * D + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      out[i * 8] = FromFloat<T>(state.weighted[i][2 * r] / state.sum[r]);
      out[i * 8 + 1] = FromFloat<T>(state.weighted[i][2 * r + 1] / state.sum[r]);
    }
  }
}

template <int D, typename T, typename C>
void LaunchPrefillOf(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  const LaunchShape shape = {dim3(items, static_cast<unsigned>(p.step.kv_heads)), kTileThreads,
                             kTileElements<D> * sizeof(T) + TileStages<D, T, C>::kBytes};
  CAIRN_LAUNCH((PrefillKernel<D, T, C>), stream, shape, p);
}

}  // namespace

template <typename T>
void LaunchPrefill(const AttentionParams<T>& p, unsigned items, cudaStream_t stream) {
  ForTileTypes<T>(p.step.head_dim, p.step.dtype,
                  [&]<int D, typename C>() { LaunchPrefillOf<D, T, C>(p, items, stream); });
}

template void LaunchPrefill<__nv_bfloat16>(const AttentionParams<__nv_bfloat16>&, unsigned, cudaStream_t);
template void LaunchPrefill<__half>(const AttentionParams<__half>&, unsigned, cudaStream_t);

}  // namespace cairn::cuda
