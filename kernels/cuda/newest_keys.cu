// The search for every key's newest near-duplicate: of a tile of products only the largest similar slot of each row is
// kept.
#include <climits>

#include "kernels/cuda/key_similarity.h"
#include "kernels/cuda/storage.h"
#include "kernels/cuda/tile.h"

namespace cairn::cuda {
namespace {

// A key that searches.
struct Searcher {
  int32_t slot, newest;
  bool open;  // among all keys, not only those that the last call did not see
  float factor;

  // `known`: what Recall says. Nothing behind the last key searches.
  __device__ __forceinline__ void Begin(const HeadKeys& keys, int32_t own_slot, int32_t known) {
    slot = own_slot;
    open = own_slot < keys.n && known == kUnknown;
    newest = own_slot < keys.n ? max(known, kNone) : INT_MAX;
    factor = own_slot < keys.n ? keys.p.factors[keys.At(own_slot)] : 0;
  }
  // Could it find something newer than it has below slot `end`?
  __device__ __forceinline__ bool Searches(int32_t end, bool is_old) const {
    return newest < end - 1 && (open || !is_old);
  }
  // False only where no key with products of at most `most` (each with its factor) passes IsLike, whose rounding is
  // another. A zero factor stands for products that may be NaN, whose similarity is zero.
  __device__ __forceinline__ bool MayBeLike(const HeadKeys& keys, float most) const {
    const float similarity = most * factor;
    return !(similarity + fabsf(similarity) * 1e-6f <= keys.p.threshold) || keys.p.threshold < 0;
  }
  __device__ __forceinline__ bool IsLike(const HeadKeys& keys, int32_t column, float dot, float other) const {
    return column < keys.n && column != slot && Similarity(dot, factor, other) > keys.p.threshold;
  }
};

// The block's own keys and two stages of others in shared memory; codes as in TileStages.
template <int D, typename T, typename C>
struct KeyStages {
  static constexpr size_t kBytes =
      (kIsCode<C> ? 2 : 3) * kTileElements<D> * sizeof(T) + (kIsCode<C> ? 3 * kCachedElements<D, C> : 0) * sizeof(C);
  T *own, *others;
  C *cached_own, *cached_others;

  __device__ __forceinline__ explicit KeyStages(T* memory) : own(memory), others(memory + kTileElements<D>) {
    if constexpr (kIsCode<C>) {
      cached_own = reinterpret_cast<C*>(others + kTileElements<D>);
      cached_others = cached_own + kCachedElements<D, C>;
    } else {
      cached_own = own;
      cached_others = others;
    }
  }
  __device__ __forceinline__ C* cached(int stage) const { return cached_others + stage * kCachedElements<D, C>; }
  // Of keys that have arrived for every thread.
  __device__ __forceinline__ void WidenOwn() const {
    if constexpr (kIsCode<C>) {
      WidenTile<D>(cached_own, own);
      __syncthreads();
    }
  }
  __device__ __forceinline__ const T* Keys(int stage) const {
    if constexpr (kIsCode<C>) {
      WidenTile<D>(cached(stage), others);
      __syncthreads();
      return others;
    } else {
      return cached(stage);
    }
  }
};

// On tensor cores, block (64 keys, row): four warps of 16 rows against 64 columns at a time, the next ones on their
// way meanwhile.
template <int D, typename T, typename C>
__global__ void __launch_bounds__(kTileThreads) NewestTilesKernel(KeyParams p) {
  CAIRN_DYNAMIC_SHARED(T, rows);  // the block's own keys, then others
  CAIRN_SHARED(int32_t, known, [kTileSlots]);
  const KeyStages<D, T, C> stages(rows);
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.y));
  const int32_t n = keys.n, first = static_cast<int32_t>(blockIdx.x) * kTileSlots;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const float* factors = p.factors + keys.At(0);
  if (first >= n) return;

  int32_t begin = (n - 1) / kTileSlots * kTileSlots;
  FetchKeys<D>(p.step, keys.s, keys.head, first, n, stages.cached_own);
  FetchKeys<D>(p.step, keys.s, keys.head, begin, n, stages.cached(0));
  if (thread < kTileSlots && first + thread < n) known[thread] = keys.Recall(first + thread);
  CopyAsyncWait<1>();
  __syncthreads();
  stages.WidenOwn();
  unsigned own[D / 16][4];
  LoadQueries<D>(rows + warp * 16 * kTileStride<D>, own);
  Searcher row[2];  // of this lane, and of three more
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int index = warp * 16 + lane / 4 + 8 * r;
    row[r].Begin(keys, first + index, known[index]);
  }

  for (int stage = 0; begin >= 0; begin -= kTileSlots, stage ^= 1) {
    const int32_t end = min(begin + kTileSlots, n);
    const bool is_old = keys.IsOld(end - 1);
    CopyAsyncWait<0>();
    // The columns have arrived, and those before have been read.
    if (__syncthreads_or(row[0].Searches(end, is_old) || row[1].Searches(end, is_old)) == 0) break;
    if (begin > 0) FetchKeys<D>(p.step, keys.s, keys.head, begin - kTileSlots, n, stages.cached(stage ^ 1));
    const T* k = stages.Keys(stage);
#pragma unroll
    for (int n = 0; n < kTileSlots / 16; ++n) {
      float dots[2][4];
      Scores<D>(own, k + n * 16 * kTileStride<D>, dots);
      const int32_t column = begin + n * 16 + lane % 4 * 2;
      float others[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) others[i] = factors[column + i / 2 * 8 + i % 2];
        // Most are like none of them, which the largest tells.
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float most = fmaxf(fmaxf(dots[0][2 * r] * others[0], dots[0][2 * r + 1] * others[1]),
                                 fmaxf(dots[1][2 * r] * others[2], dots[1][2 * r + 1] * others[3]));
        if (!row[r].MayBeLike(keys, most)) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t at = column + i / 2 * 8 + i % 2;
          if (row[r].IsLike(keys, at, dots[i / 2][2 * r + i % 2], others[i])) row[r].newest = max(row[r].newest, at);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      row[r].newest = max(row[r].newest, __shfl_xor_sync(kAllLanes, row[r].newest, 1));
      row[r].newest = max(row[r].newest, __shfl_xor_sync(kAllLanes, row[r].newest, 2));
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (lane % 4 == 0 && row[r].slot < n) p.newest[keys.At(row[r].slot)] = row[r].newest;
  }
}

constexpr int kPlainThreads = 128;
constexpr int kRowsPerWarp = 4;
constexpr int kPlainRows = kRowsPerWarp * kPlainThreads / kWarpSize;

// Any type and size, block (16 keys, row): four rows a warp, one column a lane.
__global__ void __launch_bounds__(kPlainThreads) NewestRowsKernel(KeyParams p) {
  CAIRN_DYNAMIC_SHARED(float, rows);  // [16][d], then columns [32][d + 1]
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.y));
  const int32_t n = keys.n, d = p.step.head_dim, first = static_cast<int32_t>(blockIdx.x) * kPlainRows;
  if (first >= n) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  float* const columns = rows + kPlainRows * d;
  const auto read = [&](int32_t slot, int i) {  // behind the last key: any
    slot = min(slot, n - 1);
    return ReadAs(p.step.dtype, p.step.Block(keys.s, slot), p.step.InPlane(keys.head, slot) * d + i);
  };
  for (int i = thread; i < kPlainRows * d; i += kPlainThreads) rows[i] = read(first + i / d, i % d);
  const int32_t own = first + warp * kRowsPerWarp;
  const int32_t known = lane < kRowsPerWarp && own + lane < n ? keys.Recall(own + lane) : kNone;
  Searcher row[kRowsPerWarp];  // the same in all lanes
#pragma unroll
  for (int j = 0; j < kRowsPerWarp; ++j) row[j].Begin(keys, own + j, __shfl_sync(kAllLanes, known, j));

  for (int32_t begin = (n - 1) / kWarpSize * kWarpSize; begin >= 0; begin -= kWarpSize) {
    const int32_t end = min(begin + kWarpSize, n), column = begin + lane;
    const bool is_old = keys.IsOld(end - 1);
    bool searches = false;
#pragma unroll
    for (int j = 0; j < kRowsPerWarp; ++j) searches |= row[j].Searches(end, is_old);
    if (__syncthreads_or(searches) == 0) break;  // besides, the columns before have been read
    for (int i = thread; i < kWarpSize * d; i += kPlainThreads)
      columns[i / d * (d + 1) + i % d] = read(begin + i / d, i % d);
    __syncthreads();
    float dots[kRowsPerWarp] = {};
    for (int i = 0; i < d; ++i) {
      const float k = columns[lane * (d + 1) + i];
#pragma unroll
      for (int j = 0; j < kRowsPerWarp; ++j) dots[j] += rows[(warp * kRowsPerWarp + j) * d + i] * k;
    }
    const float factor = p.factors[keys.At(min(column, n - 1))];
#pragma unroll
    for (int j = 0; j < kRowsPerWarp; ++j) {
      const unsigned like = __ballot_sync(kAllLanes, row[j].IsLike(keys, column, dots[j], factor));
      if (like != 0) row[j].newest = max(row[j].newest, begin + kWarpSize - 1 - __clz(static_cast<int>(like)));
    }
  }
#pragma unroll
  for (int j = 0; j < kRowsPerWarp; ++j) {
    if (lane == 0 && row[j].slot < n) p.newest[keys.At(row[j].slot)] = row[j].newest;
  }
}

template <int D, typename T, typename C = T>
void LaunchTiles(const KeyParams& p, unsigned rows, cudaStream_t stream) {
  const LaunchShape shape = {dim3(Blocks(p.stride, kTileSlots), rows), kTileThreads, KeyStages<D, T, C>::kBytes};
  CAIRN_LAUNCH((NewestTilesKernel<D, T, C>), stream, shape, p);
}

}  // namespace

void LaunchFindNewest(const KeyParams& p, unsigned rows, cudaStream_t stream) {
  const bool is_64 = p.step.head_dim == 64;
  if (HasTiles(p.step.head_dim) && p.step.dtype == DType::kBFloat16) {
    return is_64 ? LaunchTiles<64, __nv_bfloat16>(p, rows, stream) : LaunchTiles<128, __nv_bfloat16>(p, rows, stream);
  }
  if (HasTiles(p.step.head_dim) && p.step.dtype == DType::kFloat16) {
    return is_64 ? LaunchTiles<64, __half>(p, rows, stream) : LaunchTiles<128, __half>(p, rows, stream);
  }
  if (HasTiles(p.step.head_dim) && p.step.dtype == DType::kFloat8E4M3) {
    return is_64 ? LaunchTiles<64, __half, __nv_fp8_e4m3>(p, rows, stream)
                 : LaunchTiles<128, __half, __nv_fp8_e4m3>(p, rows, stream);
  }
  const size_t d = static_cast<size_t>(p.step.head_dim);
  const LaunchShape shape = {dim3(Blocks(p.stride, kPlainRows), rows), kPlainThreads,
                             (kPlainRows * d + kWarpSize * (d + 1)) * sizeof(float)};
  CAIRN_LAUNCH(NewestRowsKernel, stream, shape, p);
}

}  // namespace cairn::cuda
