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
__global__ void __launch_bounds__(kThreads) SelectKernel(RowView<const T> scores, const Selection* layers,
                                                         int rows_per_layer, int num_first, RowView<int32_t> kept) {
  const Selection layer = layers[blockIdx.x / static_cast<unsigned>(rows_per_layer)];
  const int m = layer.candidates, recent = layer.recent, keep = layer.keep;
  CAIRN_SHARED(int, counts, [2][2][kWarps]);  // by turns: of scores above the threshold and of its equals, by warp
  const T* score = scores.row(blockIdx.x);
  int32_t* out = kept.row(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int first = min(num_first, keep - recent), count = keep - recent - first;
  for (int i = thread; i < first; i += kThreads) out[i] = i;
  for (int i = thread; i < recent; i += kThreads) out[keep - recent + i] = m + i;
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
void SelectRows(Context& context, const Tensor& scores, absl::Span<const Selection> layers, int num_first,
                const Tensor& kept) {
  CAIRN_LAUNCH(SelectKernel<T>, context.cuda().stream(), {static_cast<unsigned>(kept.dim(0)), kThreads},
               ViewRows<const T>(scores), context.cuda().Upload(layers.data(), layers.size()),
               static_cast<int>(scores.dim(0)) / static_cast<int>(layers.size()), num_first, ViewRows<int32_t>(kept));
}

// Row blockIdx.x of `fixed`, kThreads columns.
__global__ void __launch_bounds__(kThreads)
    FixedPointKernel(RowView<const float> scores, int terms, int n, bool accumulate, RowView<int64_t> fixed) {
  const int i = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (i >= n) return;
  int64_t& to = fixed.row(blockIdx.x)[i];
  int64_t sum = accumulate ? to : 0;
  for (int term = 0; term < terms; ++term) {
    sum += ToFixedPoint(scores.row(static_cast<int64_t>(blockIdx.x) * terms + term)[i]);
  }
  to = sum;
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

// Block (head, layer), `sets` of a layer, or none of its own; as many slots at a time as there are kMoves x threads for
// their units. Sources lie at or behind their targets, so a round disturbs itself alone: all of it is read before any
// is written.
constexpr int kMoves = 4;

template <typename U>
__global__ void __launch_bounds__(kThreads)
    CompactKernel(PagedStep step, RowView<const int32_t> kept, const int32_t* keeps, int sets, int units) {
  const int head = static_cast<int>(blockIdx.x), layer = static_cast<int>(blockIdx.y);
  const PagedSequence s = step.sequences[layer];
  const int thread = static_cast<int>(threadIdx.x), keep = keeps[layer];
  const int32_t* from = kept.row(layer * sets + (sets > 1 ? head : 0));
  const int together = kThreads / units, own = thread / units, unit = thread % units;  // slots of a move, and this one
  const bool moves = own < together;
  const int slots = max(1, kMoves * together);
  for (int begin = 0; begin < keep; begin += slots) {
    const int count = min(slots, keep - begin);
    if (from[begin + count - 1] == begin + count - 1) continue;  // all of them stay where they are
    // A slot of more units than there are threads cannot disturb itself.
    for (int i = thread; i < units && together == 0; i += kThreads) {
      for (const int64_t plane : {int64_t{0}, int64_t{step.v_offset}}) {
        *UnitAt<U>(step, s, head, begin, plane, units, i) = *UnitAt<U>(step, s, head, from[begin], plane, units, i);
      }
    }
    U k[kMoves] = {}, v[kMoves] = {};
#pragma unroll
    for (int j = 0; j < kMoves; ++j) {
      const int at = j * together + own;
      if (!moves || at >= count) continue;
      const int32_t source = from[begin + at];
      k[j] = *UnitAt<U>(step, s, head, source, 0, units, unit);
      v[j] = *UnitAt<U>(step, s, head, source, step.v_offset, units, unit);
    }
    int32_t positions[kMoves] = {};
    float scores[kMaxScores][kMoves] = {};
#pragma unroll
    for (int j = 0; j < kMoves; ++j) {
      const int i = j * kThreads + thread;
      if (i >= count) continue;
      positions[j] = *step.Position(s, head, from[begin + i]);
#pragma unroll
      for (int plane = 0; plane < kMaxScores; ++plane) {
        if (plane < step.num_scores) scores[plane][j] = *step.Score(s, head, from[begin + i], plane);
      }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kMoves; ++j) {
      const int at = j * together + own;
      if (!moves || at >= count) continue;
      *UnitAt<U>(step, s, head, begin + at, 0, units, unit) = k[j];
      *UnitAt<U>(step, s, head, begin + at, step.v_offset, units, unit) = v[j];
    }
#pragma unroll
    for (int j = 0; j < kMoves; ++j) {
      const int i = j * kThreads + thread;
      if (i >= count) continue;
      *step.Position(s, head, begin + i) = positions[j];
#pragma unroll
      for (int plane = 0; plane < kMaxScores; ++plane) {
        if (plane < step.num_scores) *step.Score(s, head, begin + i, plane) = scores[plane][j];
      }
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

void SelectTopK(Context& context, const Tensor& scores, absl::Span<const Selection> layers, int num_first,
                const Tensor& kept) {
  if (scores.dtype() == DType::kInt64) {
    SelectRows<int64_t>(context, scores, layers, num_first, kept);
  } else {
    SelectRows<float>(context, scores, layers, num_first, kept);
  }
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  const int n = static_cast<int>(scores.dim(1));
  const LaunchShape shape = {dim3(static_cast<unsigned>(fixed.dim(0)), Blocks(n, kThreads)), kThreads};
  CAIRN_LAUNCH(FixedPointKernel, context.cuda().stream(), shape, ViewRows<const float>(scores),
               static_cast<int>(scores.dim(0) / fixed.dim(0)), n, accumulate, ViewRows<int64_t>(fixed));
}

void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints) {
  const int rows = static_cast<int>(kept.dim(0));
  CAIRN_LAUNCH(FingerprintKernel, context.cuda().stream(), {Blocks(rows, kThreads), kThreads},
               ViewRows<const int32_t>(kept), rows, static_cast<int>(kept.dim(1)), ViewRows<int64_t>(fingerprints));
}

void KvCompact(Context& context, absl::Span<const KvView> kv, const Tensor& kept, absl::Span<const int32_t> keep) {
  const PagedStep step = UploadCaches(context, kv);
  const int32_t* keeps = context.cuda().Upload(keep.data(), keep.size());
  const int row_bytes = kv[0].layout.head_dim * static_cast<int>(DTypeSize(kv[0].layout.dtype));
  const LaunchShape shape = {dim3(static_cast<unsigned>(step.kv_heads), static_cast<unsigned>(kv.size())), kThreads};
  const auto launch = [&](auto unit) {
    using U = decltype(unit);
    CAIRN_LAUNCH(CompactKernel<U>, context.cuda().stream(), shape, step, ViewRows<const int32_t>(kept), keeps,
                 kept.dim(0) == 1 ? 0 : static_cast<int>(kept.dim(0)) / static_cast<int>(kv.size()),
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
