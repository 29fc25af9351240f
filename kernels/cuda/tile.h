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

// Starts the copy of slots [begin, begin + 64) of one head, zeros from `end` on, as one group.
template <int D, typename T>
__device__ __forceinline__ void FetchTile(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                          int32_t end, T* k, T* v) {
  constexpr int kPieces = D / 8;  // of 16 bytes
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kTileSlots * kPieces; i += kTileThreads) {
    const int32_t row = i / kPieces, column = i % kPieces * 8, slot = begin + row;
    const bool valid = slot < end;
    const uint8_t* block = valid ? step.Block(s, slot) : s.pool;
    const int64_t at = valid ? (step.InPlane(head, slot) * D + column) * static_cast<int64_t>(sizeof(T)) : 0;
    CopyAsync16(k + row * kTileStride<D> + column, block + at, valid);
    CopyAsync16(v + row * kTileStride<D> + column, block + step.v_offset + at, valid);
  }
  CopyAsyncCommit();
}

// The same for keys alone.
template <int D, typename T>
__device__ __forceinline__ void FetchKeys(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t begin,
                                          int32_t end, T* k) {
  constexpr int kPieces = D / 8;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kTileSlots * kPieces; i += kTileThreads) {
    const int32_t row = i / kPieces, column = i % kPieces * 8, slot = begin + row;
    const bool valid = slot < end;
    const uint8_t* block = valid ? step.Block(s, slot) : s.pool;
    const int64_t at = valid ? (step.InPlane(head, slot) * D + column) * static_cast<int64_t>(sizeof(T)) : 0;
    CopyAsync16(k + row * kTileStride<D> + column, block + at, valid);
  }
  CopyAsyncCommit();
}

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

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_TILE_H_
