// Pieces of the tensor-core attention kernels: tiles of keys and values in shared memory, and products of a warp's 16
// query vectors with 16 slots of them (Dao, arXiv 2307.08691, has the order of the steps).
#ifndef CAIRN_KERNELS_CUDA_TILE_H_
#define CAIRN_KERNELS_CUDA_TILE_H_

#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/reduce.h"

namespace cairn::cuda {

inline constexpr int kTileSlots = 64;
inline constexpr int kTileWarps = 4;
inline constexpr int kTileThreads = kTileWarps * kWarpSize;
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// Elements from row to row of a tile: 16 bytes more than the row, so that ldmatrix meets every bank once.
template <int D>
inline constexpr int kTileStride = D + 8;
template <int D>
inline constexpr int kTileElements = kTileSlots* kTileStride<D>;

// 16-bit storage types: their product and the pair of two of them in a register.
__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                            __nv_bfloat16) {
  MmaBf16(d, a, b);
}
__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
  MmaF16(d, a, b);
}
__device__ __forceinline__ unsigned Pair(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}
__device__ __forceinline__ unsigned Pair(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

// Two E4M3 codes as numbers of these types, which hold them exactly; low half first.
__device__ __forceinline__ unsigned WidenPair(unsigned codes, __half) {
  const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
  return pair.x | static_cast<unsigned>(pair.y) << 16;
}
__device__ __forceinline__ unsigned WidenPair(unsigned codes, __nv_bfloat16) {
  const float2 pair =
      __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3)));
  return Pair(pair.x, pair.y, __nv_bfloat16());
}

// What the cache holds, C: the type T that is multiplied, or E4M3. Codes wait as they come, without gaps, until they
// are widened.
template <typename C>
inline constexpr bool kIsCode = sizeof(C) == 1;
template <int D, typename C>
inline constexpr int kCachedStride = kIsCode<C> ? D : kTileStride<D>;
template <int D, typename C>
inline constexpr int kCachedElements = kTileSlots* kCachedStride<D, C>;

// Starts the copy of slots [begin, begin + 64) of one head, zeros from `end` (> begin) on, as one group: keys to k,
// with kValues values to v. Few instructions for each piece of 16 bytes: they are half of some kernels.
template <int D, bool kValues, typename C>
__device__ __forceinline__ void FetchSlots(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                           int32_t end, C* k, C* v) {
  constexpr int kPiece = 16 / static_cast<int>(sizeof(C)), kPieces = D / kPiece, kRows = kTileThreads / kPieces;
  const int row = static_cast<int>(threadIdx.x) / kPieces;
  const int column = static_cast<int>(threadIdx.x) % kPieces * kPiece;
  const uint32_t in_block = static_cast<uint32_t>(head * step.block_size * D + column) * sizeof(C);
  const int to = row * kCachedStride<D, C> + column;
#pragma unroll
  for (int j = 0; j < kTileSlots / kRows; ++j) {
    const int32_t slot = begin + row + j * kRows, from = min(slot, end - 1);
    const uint8_t* source =
        step.Block(s, from) + (in_block + static_cast<uint32_t>(step.InBlock(from)) * (D * sizeof(C)));
    CopyAsync16(k + to + j * kRows * kCachedStride<D, C>, source, slot < end);
    if constexpr (kValues) CopyAsync16(v + to + j * kRows * kCachedStride<D, C>, source + step.v_offset, slot < end);
  }
  CopyAsyncCommit();
}
template <int D, typename C>
__device__ __forceinline__ void FetchTile(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                          int32_t end, C* k, C* v) {
  FetchSlots<D, true>(step, s, head, begin, end, k, v);
}
template <int D, typename C>
__device__ __forceinline__ void FetchKeys(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                          int32_t end, C* k) {
  FetchSlots<D, false>(step, s, head, begin, end, k, static_cast<C*>(nullptr));
}

// A tile of codes that has arrived to rows of T, sixteen numbers a thread at a time.
template <int D, typename T>
__device__ __forceinline__ void WidenTile(const __nv_fp8_e4m3* codes, T* rows) {
  constexpr int kPieces = D / 16;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < kTileSlots * kPieces; i += kTileThreads) {
    const int row = i / kPieces, column = i % kPieces * 16;
    const uint4 piece = *reinterpret_cast<const uint4*>(codes + row * D + column);
    uint4* const to = reinterpret_cast<uint4*>(rows + row * kTileStride<D> + column);
    to[0] = make_uint4(WidenPair(piece.x & 0xffff, T()), WidenPair(piece.x >> 16, T()),
                       WidenPair(piece.y & 0xffff, T()), WidenPair(piece.y >> 16, T()));
    to[1] = make_uint4(WidenPair(piece.z & 0xffff, T()), WidenPair(piece.z >> 16, T()),
                       WidenPair(piece.w & 0xffff, T()), WidenPair(piece.w >> 16, T()));
  }
}

// Keys and values in shared memory: two stages of them, one being worked on while the other is on its way. Of codes
// both stages wait as codes, and the one that is worked on is widened.
template <int D, typename T, typename C>
struct TileStages {
  static constexpr int kRows = (kIsCode<C> ? 1 : 2) * kTileElements<D>;  // of keys, and of values
  static constexpr size_t kBytes =
      2 * kRows * sizeof(T) + (kIsCode<C> ? 4 * kCachedElements<D, C> * sizeof(C) : size_t{0});
  T *keys, *values;
  C *cached_keys, *cached_values;

  __device__ __forceinline__ explicit TileStages(T* memory) : keys(memory), values(memory + kRows) {
    if constexpr (kIsCode<C>) {
      cached_keys = reinterpret_cast<C*>(values + kRows);
      cached_values = cached_keys + 2 * kCachedElements<D, C>;
    } else {
      cached_keys = keys;
      cached_values = values;
    }
  }
  __device__ __forceinline__ void Fetch(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                        int32_t end, int stage) const {
    const int at = stage * kCachedElements<D, C>;
    FetchTile<D>(step, s, head, begin, end, cached_keys + at, cached_values + at);
  }
  // Of a stage that has arrived for every thread: where its rows begin in `keys` and `values`.
  __device__ __forceinline__ int Rows(int stage) const {
    if constexpr (kIsCode<C>) {
      WidenTile<D>(cached_keys + stage * kCachedElements<D, C>, keys);
      WidenTile<D>(cached_values + stage * kCachedElements<D, C>, values);
      __syncthreads();
      return 0;
    } else {
      return stage * kTileElements<D>;
    }
  }
};

// The fragments of a warp's 16 query vectors, from rows in shared memory.
template <int D, typename T>
__device__ __forceinline__ void LoadQueries(const T* rows, unsigned (&q)[D / 16][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int i = 0; i < D / 16; ++i) LoadMatrices(q[i], rows + lane % 16 * kTileStride<D> + i * 16 + lane / 16 * 8);
}

// scores[0], scores[1]: the 16 vectors against slots 0..7 and 8..15 of k.
template <int D, typename T>
__device__ __forceinline__ void Scores(const unsigned (&q)[D / 16][4], const T* k, float (&scores)[2][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
  }
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    unsigned r[4];
    LoadMatrices(r, k + (lane % 8 + lane / 16 * 8) * kTileStride<D> + i * 16 + lane / 8 % 2 * 8);
    const unsigned low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
    MultiplyAdd(scores[0], q[i], low, T());
    MultiplyAdd(scores[1], q[i], high, T());
  }
}

// weighted += weights v over 16 slots.
template <int D, typename T>
__device__ __forceinline__ void AddWeighted(const float (&weights)[2][4], const T* v, float (&weighted)[D / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const unsigned p[4] = {Pair(weights[0][0], weights[0][1], T()), Pair(weights[0][2], weights[0][3], T()),
                         Pair(weights[1][0], weights[1][1], T()), Pair(weights[1][2], weights[1][3], T())};
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    unsigned r[4];
    LoadMatricesTransposed(r, v + lane % 16 * kTileStride<D> + i * 16 + lane / 16 * 8);
    const unsigned low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
    MultiplyAdd(weighted[2 * i], p, low, T());
    MultiplyAdd(weighted[2 * i + 1], p, high, T());
  }
}

// The softmax of two query vectors of a lane (fragment rows lane / 4 and lane / 4 + 8), over slots that come by and by.
// Scores are in units of log 2.
template <int D>
struct SoftmaxState {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this lane's columns, until Finish
  float weighted[D / 8][4] = {};

  // Turns kTiles x 8 scores into weights relative to the new maximum.
  template <int kTiles>
  __device__ __forceinline__ void Update(float (&scores)[kTiles][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float new_max = max[r];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) new_max = fmaxf(new_max, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 1));
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 2));
      const float base = new_max == -INFINITY ? 0 : new_max;  // nothing visible yet
      const float factor = Exp2(max[r] - base);
      max[r] = new_max;
      sum[r] *= factor;
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        weighted[i][2 * r] *= factor;
        weighted[i][2 * r + 1] *= factor;
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          scores[n][e] = Exp2(scores[n][e] - base);
          sum[r] += scores[n][e];
        }
      }
    }
  }

  __device__ __forceinline__ void Finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }
};

// Calls launch with the head size and what the cache holds, T or E4M3, as template arguments.
template <typename T, typename F>
void ForTileTypes(int32_t head_dim, DType cached, F launch) {
  const auto for_type = [&]<typename C>() {
    if (head_dim == 64) return launch.template operator()<64, C>();
    CAIRN_CHECK(head_dim == 128);
    launch.template operator()<128, C>();
  };
  if (cached == DType::kFloat8E4M3) return for_type.template operator()<__nv_fp8_e4m3>();
  for_type.template operator()<T>();
}

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_TILE_H_
