// From scores to a smaller cache. All of it is exact: integers, comparisons and copies.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/fixed_point.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kBins = 256;

// Unsigned integers in the order of the scores: NaN counts as -infinity, -0 equals 0.
__device__ __forceinline__ uint32_t KeyOf(float score) {
  const uint32_t bits = __float_as_uint(score == score ? score + 0.0f : -INFINITY);  // -0 + 0 = 0
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint64_t KeyOf(int64_t score) { return static_cast<uint64_t>(score) ^ (uint64_t{1} << 63); }

// The `count`-th largest key of scores[first, m), and how many of its equals belong to the `count` largest: digit by
// digit from the top, 8 bits at a time.
template <typename T>
struct Threshold {
  decltype(KeyOf(T())) key;
  int equals;
};

template <typename T>
__device__ Threshold<T> FindThreshold(const T* scores, int first, int m, int count) {
  using Key = decltype(KeyOf(T()));
  CAIRN_SHARED(int, bins, [kBins]);
  CAIRN_SHARED(int, chosen_bin);
  CAIRN_SHARED(int, left_in_bin);
  const int thread = static_cast<int>(threadIdx.x);
  Key prefix = 0, mask = 0;
  int need = count;
  for (int shift = 8 * static_cast<int>(sizeof(Key)) - 8; shift >= 0; shift -= 8) {
    bins[thread] = 0;
    __syncthreads();
    for (int i = first + thread; i < m; i += kThreads) {
      const Key key = KeyOf(scores[i]);
      if ((key & mask) == prefix) atomicAdd(&bins[static_cast<int>(key >> shift) & (kBins - 1)], 1);
    }
    __syncthreads();
    if (thread < kWarpSize) {  // lane l owns the bins from 255 - 8 l down
      constexpr int kOwn = kBins / kWarpSize;
      int own = 0;
      for (int j = 0; j < kOwn; ++j) own += bins[kBins - 1 - thread * kOwn - j];
      int through = own;
#pragma unroll
      for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
        const int before = __shfl_up_sync(kAllLanes, through, static_cast<unsigned>(lanes));
        if (thread >= lanes) through += before;
      }
      int above = through - own;
      if (above < need && through >= need) {
        int bin = kBins - 1 - thread * kOwn;
        while (above + bins[bin] < need) above += bins[bin--];
        chosen_bin = bin;
        left_in_bin = need - above;
      }
    }
    __syncthreads();
    prefix |= static_cast<Key>(chosen_bin) << shift;
    mask |= static_cast<Key>(kBins - 1) << shift;
    need = left_in_bin;
  }
  return {prefix, need};
}

// One block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SelectKernel(RowView<const T> scores, int m, int num_first, int window, int keep, RowView<int32_t> kept) {
  CAIRN_SHARED(int, counts, [2][2][kWarps]);  // by turns: of scores above the threshold and of its equals, by warp
  const T* score = scores.row(blockIdx.x);
  int32_t* out = kept.row(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int first = min(num_first, keep - window), count = keep - window - first;
  for (int i = thread; i < first; i += kThreads) out[i] = i;
  for (int i = thread; i < window; i += kThreads) out[keep - window + i] = m + i;
  if (count == 0) return;
  const Threshold<T> threshold = FindThreshold(score, first, m, count);

  int above = 0, equal = 0;  // in the chunks before
  for (int begin = first, turn = 0; begin < m; begin += kThreads, turn ^= 1) {
    const int slot = begin + thread;
    const auto key = slot < m ? KeyOf(score[slot]) : decltype(threshold.key)(0);
    const bool is_above = slot < m && key > threshold.key, is_equal = slot < m && key == threshold.key;
    const unsigned above_lanes = __ballot_sync(kAllLanes, is_above), equal_lanes = __ballot_sync(kAllLanes, is_equal);
    if (lane == 0) {
      counts[turn][0][warp] = __popc(above_lanes);
      counts[turn][1][warp] = __popc(equal_lanes);
    }
    __syncthreads();
    const unsigned lower = (1u << lane) - 1;
    int above_before = above + __popc(above_lanes & lower), equal_before = equal + __popc(equal_lanes & lower);
    for (int w = 0; w < kWarps; ++w) {
      above_before += w < warp ? counts[turn][0][w] : 0;
      equal_before += w < warp ? counts[turn][1][w] : 0;
      above += counts[turn][0][w];
      equal += counts[turn][1][w];
    }
    if (is_above || (is_equal && equal_before < threshold.equals)) {
      out[first + above_before + min(equal_before, threshold.equals)] = slot;
    }
  }
}

template <typename T>
void SelectRows(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept) {
  CAIRN_LAUNCH(SelectKernel<T>, context.cuda().stream(), {static_cast<unsigned>(kept.dim(0)), kThreads},
               ViewRows<const T>(scores), static_cast<int>(scores.dim(1)), num_first, window,
               static_cast<int>(kept.dim(1)), ViewRows<int32_t>(kept));
}

__global__ void __launch_bounds__(kThreads)
    FixedPointKernel(RowView<const float> scores, int n, bool accumulate, RowView<int64_t> fixed) {
  const int i = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (i >= n) return;
  const int64_t value = ToFixedPoint(scores.row(blockIdx.x)[i]);
  int64_t& to = fixed.row(blockIdx.x)[i];
  to = accumulate ? to + value : value;
}

// One thread a row.
__global__ void __launch_bounds__(kThreads)
    FingerprintKernel(RowView<const int32_t> kept, int rows, int n, RowView<int64_t> fingerprints) {
  const int row = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (row >= rows) return;
  uint64_t hash = 0xcbf29ce484222325u;
  for (int i = 0; i < n; ++i) {
    const uint32_t slot = static_cast<uint32_t>(kept.row(row)[i]);
    for (int byte = 0; byte < 4; ++byte) hash = (hash ^ (slot >> (8 * byte) & 0xff)) * 0x100000001b3u;
  }
  *fingerprints.row(row) = static_cast<int64_t>(hash);
}

// Rows of one plane of a head, in units of U.
template <typename U>
__device__ __forceinline__ U* UnitAt(const PagedStep& step, const PagedSequence& s, int head, int32_t slot,
                                     int64_t plane, int units, int unit) {
  return reinterpret_cast<U*>(step.Block(s, slot) + plane) + step.InPlane(head, slot) * units + unit;
}

// One block a head; as many slots at a time as there are threads for their units. Sources lie at or behind their
// targets, so a round disturbs itself alone: all of it is read before any is written.
template <typename U>
__global__ void __launch_bounds__(kThreads)
    CompactKernel(PagedStep step, RowView<const int32_t> kept, int keep, int sets, int units) {
  const PagedSequence s = step.sequences[0];
  const int head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int32_t* from = kept.row(sets == 1 ? 0 : head);
  const int slots = max(1, kThreads / units);
  for (int begin = 0; begin < keep; begin += slots) {
    const int count = min(slots, keep - begin);
    // Beyond kThreads units only where a round is one slot, which cannot disturb itself.
    for (int i = thread; i < count * units; i += kThreads) {
      if (slots > 1) break;
      for (const int64_t plane : {int64_t{0}, step.v_offset}) {
        *UnitAt<U>(step, s, head, begin, plane, units, i) = *UnitAt<U>(step, s, head, from[begin], plane, units, i);
      }
    }
    const bool moves = slots > 1 && thread < count * units, moves_marks = thread < count;
    const int target = begin + thread / units, unit = thread % units;
    U k = {}, v = {};
    int32_t position = 0;
    float score = 0;
    if (moves) {
      k = *UnitAt<U>(step, s, head, from[target], 0, units, unit);
      v = *UnitAt<U>(step, s, head, from[target], step.v_offset, units, unit);
    }
    if (moves_marks) {
      position = *step.Position(s, head, from[begin + thread]);
      if (step.score_offset != 0) score = *step.Score(s, head, from[begin + thread]);
    }
    __syncthreads();
    if (moves) {
      *UnitAt<U>(step, s, head, target, 0, units, unit) = k;
      *UnitAt<U>(step, s, head, target, step.v_offset, units, unit) = v;
    }
    if (moves_marks) {
      *step.Position(s, head, begin + thread) = position;
      if (step.score_offset != 0) *step.Score(s, head, begin + thread) = score;
    }
  }
}

struct Ring {
  float* rows;
  int32_t row_begin, num_rows;
};

// Block (sequence, n): the sequence's n-th last row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RecordKernel(RowView<const T> q, const int32_t* positions, const Ring* rings, int window, int n) {
  const Ring ring = rings[blockIdx.x];
  const int back = static_cast<int>(blockIdx.y);
  if (back >= ring.num_rows) return;
  const int row = ring.row_begin + ring.num_rows - 1 - back;
  float* out = ring.rows + static_cast<int64_t>(positions[row] % window) * n;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) out[i] = ToFloat(q.row(row)[i]);
}

}  // namespace

void SelectTopK(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept) {
  if (scores.dtype() == DType::kInt64) {
    SelectRows<int64_t>(context, scores, num_first, window, kept);
  } else {
    SelectRows<float>(context, scores, num_first, window, kept);
  }
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  const int n = static_cast<int>(scores.dim(1));
  const LaunchShape shape = {dim3(static_cast<unsigned>(scores.dim(0)), Blocks(n, kThreads)), kThreads};
  CAIRN_LAUNCH(FixedPointKernel, context.cuda().stream(), shape, ViewRows<const float>(scores), n, accumulate,
               ViewRows<int64_t>(fixed));
}

void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints) {
  const int rows = static_cast<int>(kept.dim(0));
  CAIRN_LAUNCH(FingerprintKernel, context.cuda().stream(), {Blocks(rows, kThreads), kThreads},
               ViewRows<const int32_t>(kept), rows, static_cast<int>(kept.dim(1)), ViewRows<int64_t>(fingerprints));
}

void KvCompact(Context& context, const KvView& kv, const Tensor& kept) {
  const PagedStep step = UploadCache(context, kv);
  const int row_bytes = kv.layout.head_dim * static_cast<int>(DTypeSize(kv.layout.dtype));
  const auto launch = [&](auto unit) {
    using U = decltype(unit);
    CAIRN_LAUNCH(CompactKernel<U>, context.cuda().stream(), {static_cast<unsigned>(kv.layout.kv_heads), kThreads}, step,
                 ViewRows<const int32_t>(kept), static_cast<int>(kept.dim(1)), static_cast<int>(kept.dim(0)),
                 row_bytes / static_cast<int>(sizeof(U)));
  };
  if (row_bytes % static_cast<int>(sizeof(uint4)) == 0) return launch(uint4());
  launch(uint16_t());
}

void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window) {
  std::vector<Ring> records;
  records.reserve(sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    records.push_back({rings[i], sequences[i].row_begin, sequences[i].num_rows});
  }
  const Ring* uploaded = context.cuda().Upload(records.data(), records.size());
  const LaunchShape shape = {dim3(static_cast<unsigned>(records.size()), static_cast<unsigned>(window)), kThreads};
  WithType(q.dtype(), [&](auto element) {
    using T = decltype(element);
    CAIRN_LAUNCH(RecordKernel<T>, context.cuda().stream(), shape, ViewRows<const T>(q),
                 static_cast<const int32_t*>(positions.data<int32_t>()), uploaded, window,
                 static_cast<int>(q.row_elements()));
  });
}

}  // namespace cairn::cuda
