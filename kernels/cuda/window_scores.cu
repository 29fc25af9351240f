// The attention that the window's queries pay to the slots: logits, each query's softmax, and the sums over queries and
// heads. In scratch memory there are logits of some heads of some layers; every number of it is made by one thread in
// one order, so that a head's scores depend on that head alone.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/fixed_point.h"
#include "kernels/cuda/paged.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/score_scratch.h"
#include "kernels/cuda/storage.h"
#include "kernels/cuda/tile.h"

namespace cairn::cuda {
namespace {

struct WindowParams {
  PagedStep step;
  RowView<const float> queries;  // [layers * w, heads * group * d]
  int32_t group, window;
  int32_t left_out;   // slots at the end that have no logits
  int32_t first_row;  // of the rows (layer, head) that the launch works on
  int32_t per_query;  // logits of a query and slot: `group`, or 1: their largest
  float scale;        // 1 / sqrt(d)
  float* logits;      // [rows, w * per_query, stride]
  int64_t stride;

  __device__ __forceinline__ int32_t vectors() const { return window * group; }
  // Of the launch's blockIdx.y-th row.
  __device__ __forceinline__ float* Logits(int32_t vector) const {
    return logits + (static_cast<int64_t>(blockIdx.y) * window * per_query + vector) * stride;
  }
};

// The launch's blockIdx.y-th row.
struct LayerHead {
  int32_t row, layer, head, slots;

  __device__ __forceinline__ explicit LayerHead(const WindowParams& p)
      : row(p.first_row + static_cast<int32_t>(blockIdx.y)),
        layer(row / p.step.kv_heads),
        head(row % p.step.kv_heads),
        slots(p.step.sequences[layer].num_slots - p.left_out) {}
  // Element i of head g of query r.
  __device__ __forceinline__ float Query(const WindowParams& p, int32_t r, int32_t g, int32_t i) const {
    const float* query = p.queries.row(static_cast<int64_t>(layer) * p.window + r);
    return query[(head * p.group + g) * p.step.head_dim + i] * p.scale;
  }
};

constexpr int kLogitThreads = 128;
constexpr int kVectorsPerWarp = 4;
constexpr int kVectorsAtOnce = kVectorsPerWarp * kLogitThreads / kWarpSize;

// Any type and size, block (32 slots, row): a lane a slot, four query vectors a warp at a time. All vectors' logits.
__global__ void __launch_bounds__(kLogitThreads) LogitsKernel(WindowParams p) {
  CAIRN_DYNAMIC_SHARED(float, keys);  // [32][d + 1], then queries [16][d]
  const LayerHead own(p);
  const PagedSequence s = p.step.sequences[own.layer];
  const int32_t d = p.step.head_dim;
  float* const queries = keys + kWarpSize * (d + 1);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kWarpSize, slot = begin + lane;
  if (begin >= own.slots) return;
  for (int i = thread; i < kWarpSize * d; i += kLogitThreads) {
    const int32_t from = min(begin + i / d, own.slots - 1);  // behind the last slot: never looked at
    keys[i / d * (d + 1) + i % d] =
        ReadAs(p.step.dtype, p.step.Block(s, from), p.step.InPlane(own.head, from) * d + i % d);
  }
  for (int32_t first = 0; first < p.vectors(); first += kVectorsAtOnce) {
    __syncthreads();  // before the queries are replaced
    for (int i = thread; i < kVectorsAtOnce * d; i += kLogitThreads) {
      const int32_t v = first + i / d;
      queries[i] = v < p.vectors() ? own.Query(p, v / p.group, v % p.group, i % d) : 0;
    }
    __syncthreads();
    const float* key = keys + lane * (d + 1);
    const float* mine = queries + warp * kVectorsPerWarp * d;
    float dots[kVectorsPerWarp] = {};
    for (int i = 0; i < d; ++i) {
      const float k = key[i];
#pragma unroll
      for (int j = 0; j < kVectorsPerWarp; ++j) dots[j] += mine[j * d + i] * k;
    }
    if (slot >= own.slots) continue;
#pragma unroll
    for (int j = 0; j < kVectorsPerWarp; ++j) {
      const int32_t v = first + warp * kVectorsPerWarp + j;
      if (v < p.vectors()) p.Logits(v)[slot] = dots[j];
    }
  }
}

constexpr int kTileVectors = 16;
// A float32 query is the sum of three numbers of 8 bits or more.
constexpr int kQueryParts = 3;

// On tensor cores, block (64 slots, row): four warps of 16 slots against as many whole groups of query vectors at a
// time as 16 rows hold. All vectors' logits, or with p.per_query 1 each query's largest of the group.
template <int D, typename T, typename C>
__global__ void __launch_bounds__(kTileThreads) LogitTilesKernel(WindowParams p) {
  CAIRN_DYNAMIC_SHARED(T, keys);  // of codes, these behind the keys
  CAIRN_SHARED_ALIGNED(16, T, queries, [kQueryParts * kTileVectors * kTileStride<D>]);
  CAIRN_SHARED(float, products, [kTileWarps][kTileVectors][17]);
  const LayerHead own(p);
  const PagedSequence s = p.step.sequences[own.layer];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kTileSlots;
  if (begin >= own.slots) return;
  C* const cached = reinterpret_cast<C*>(kIsCode<C> ? keys + kTileElements<D> : keys);
  FetchKeys<D>(p.step, s, own.head, begin, own.slots, cached);

  const int32_t queries_at_once = kTileVectors / p.group;
  for (int32_t first = 0; first < p.window; first += queries_at_once) {
    const int32_t count = min(queries_at_once, p.window - first), vectors = count * p.group;
    // Vector v is head g of query r, without a division for each.
    const int32_t column = thread % D;
    for (int32_t v = thread / D, g = v, r = 0; v < kTileVectors; v += kTileThreads / D, g += kTileThreads / D) {
      for (; g >= p.group; g -= p.group) ++r;
      float rest = v < vectors ? own.Query(p, first + r, g, column) : 0;
#pragma unroll
      for (int part = 0; part < kQueryParts; ++part) {
        const T value = FromFloat<T>(rest);
        queries[(part * kTileVectors + v) * kTileStride<D> + column] = value;
        rest -= ToFloat(value);
      }
    }
    if (first == 0) CopyAsyncWait<0>();
    __syncthreads();
    if constexpr (kIsCode<C>) {
      if (first == 0) {
        WidenTile<D>(cached, keys);
        __syncthreads();
      }
    }
    float sums[2][4] = {};
#pragma unroll
    for (int part = kQueryParts - 1; part >= 0; --part) {  // the smallest first
      unsigned q[D / 16][4];
      LoadQueries<D>(queries + part * kTileVectors * kTileStride<D>, q);
      float dots[2][4];
      Scores<D>(q, keys + warp * 16 * kTileStride<D>, dots);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[i / 4][i % 4] += dots[i / 4][i % 4];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      products[warp][lane / 4 + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i / 4][i % 4];
    }
    __syncwarp();
    const int32_t slot = begin + warp * 16 + lane % 16;
    const int32_t lines = p.per_query == 1 ? count : vectors, terms = p.per_query == 1 ? p.group : 1;
    for (int32_t line = lane / 16; line < lines && slot < own.slots; line += 2) {
      float most = products[warp][line * terms][lane % 16];
      for (int32_t g = 1; g < terms; ++g) most = fmaxf(most, products[warp][line * terms + g][lane % 16]);
      p.Logits(first * p.per_query + line)[slot] = most;
    }
    __syncthreads();  // before the queries are replaced
  }
}

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// Block (vector, row): logits become probabilities over the slots that the vector may see, zero beyond.
__global__ void __launch_bounds__(kThreads) SoftmaxKernel(WindowParams p) {
  const LayerHead own(p);
  const int thread = static_cast<int>(threadIdx.x);
  const int32_t vector = static_cast<int32_t>(blockIdx.x);
  float* x = p.Logits(vector);
  const int32_t visible = own.slots - p.window + vector / p.group + 1;
  float most = -INFINITY;
  for (int32_t i = thread; i < visible; i += kThreads) most = fmaxf(most, x[i]);
  most = BlockMax<kThreads>(most);
  float sum = 0;
  for (int32_t i = thread; i < visible; i += kThreads) {
    const float e = expf(x[i] - most);
    x[i] = e;
    sum += e;
  }
  const float factor = 1.0f / BlockSum<kThreads>(sum);
  for (int32_t i = thread; i < own.slots; i += kThreads) x[i] = i < visible ? x[i] * factor : 0;
}

// The largest logit of a query's group at a slot.
__device__ __forceinline__ float Largest(const WindowParams& p, int32_t query, int32_t slot) {
  const float* x = p.Logits(query * p.per_query) + slot;
  float most = x[0];
  for (int32_t g = 1; g < p.per_query; ++g) most = fmaxf(most, x[g * p.stride]);
  return most;
}

// Block (1, row): the mean over the queries of the softmax of the group's largest logits.
__global__ void __launch_bounds__(kThreads) ImportanceKernel(WindowParams p, RowView<float> out) {
  CAIRN_DYNAMIC_SHARED(float, most);  // [w], then factors [w]
  float* const factors = most + p.window;
  const LayerHead own(p);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  for (int32_t r = warp; r < p.window; r += kWarps) {
    float largest = -INFINITY;
    for (int32_t i = lane; i < own.slots; i += kWarpSize) largest = fmaxf(largest, Largest(p, r, i));
    largest = WarpMax(largest);
    float sum = 0;
    for (int32_t i = lane; i < own.slots; i += kWarpSize) sum += expf(Largest(p, r, i) - largest);
    sum = WarpSum(sum);
    if (lane == 0) {
      most[r] = largest;
      factors[r] = 1.0f / (sum * static_cast<float>(p.window));
    }
  }
  __syncthreads();
  for (int32_t i = thread; i < own.slots; i += kThreads) {
    float sum = 0;
    for (int32_t r = 0; r < p.window; ++r) sum += expf(Largest(p, r, i) - most[r]) * factors[r];
    out.row(own.row)[i] = sum;
  }
}

// Block (slots, row).
__global__ void __launch_bounds__(kThreads)
    ReduceHeadsKernel(WindowParams p, WindowReduce reduce, int32_t left_out, RowView<float> out) {
  const LayerHead own(p);
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= own.slots - left_out) return;
  float result = 0;
  if (reduce == WindowReduce::kMeanOfMaxima) {
    for (int32_t r = 0; r < p.window; ++r) {
      float most = 0;
      for (int32_t g = 0; g < p.group; ++g) most = fmaxf(most, p.Logits(r * p.group + g)[i]);
      result += most * (1.0f / static_cast<float>(p.window));
    }
  } else {
    int64_t fixed = 0;
    for (int32_t g = 0; g < p.group; ++g) {
      float sum = 0;
      for (int32_t r = 0; r < p.window; ++r) sum += p.Logits(r * p.group + g)[i];
      result = fmaxf(result, sum);
      fixed += ToFixedPoint(sum);
    }
    if (reduce != WindowReduce::kMaxOfHeads) {
      const double heads = reduce == WindowReduce::kMeanOfHeads ? p.group : 1;
      result = static_cast<float>(static_cast<double>(fixed) / (kFixedPointOne * heads));
    }
  }
  out.row(own.row)[i] = result;
}

// Logits of a row, and rows at work together: as many as 16 MB hold (one row may take more).
constexpr int64_t kLogitsAtOnce = int64_t{1} << 22;

bool OnTiles(const PagedStep& step, int32_t group) {
  return HasTiles(step.head_dim) && step.dtype != DType::kFloat32 && group <= kTileVectors;
}

template <int D, typename T, typename C>
void LaunchLogitTilesOf(const WindowParams& p, int32_t slots, unsigned rows, cudaStream_t stream) {
  const LaunchShape shape = {dim3(Blocks(slots, kTileSlots), rows), kTileThreads,
                             kTileElements<D> * sizeof(T) + (kIsCode<C> ? kCachedElements<D, C> : 0) * sizeof(C)};
  CAIRN_LAUNCH((LogitTilesKernel<D, T, C>), stream, shape, p);
}

void LaunchLogits(const WindowParams& p, int32_t slots, unsigned rows, cudaStream_t stream) {
  if (!OnTiles(p.step, p.group)) {
    const size_t d = static_cast<size_t>(p.step.head_dim);
    const size_t shared = (kWarpSize * (d + 1) + kVectorsAtOnce * d) * sizeof(float);
    CAIRN_LAUNCH(LogitsKernel, stream, {dim3(Blocks(slots, kWarpSize), rows), kLogitThreads, shared}, p);
  } else if (p.step.dtype == DType::kBFloat16) {
    if (p.step.head_dim == 64) return LaunchLogitTilesOf<64, __nv_bfloat16, __nv_bfloat16>(p, slots, rows, stream);
    LaunchLogitTilesOf<128, __nv_bfloat16, __nv_bfloat16>(p, slots, rows, stream);
  } else {
    ForTileTypes<__half>(p.step.head_dim, p.step.dtype,
                         [&]<int D, typename C>() { LaunchLogitTilesOf<D, __half, C>(p, slots, rows, stream); });
  }
}

// finish(params, slots, rows) after the logits of so many rows, of at most so many slots. `by_group`: the largest of a
// group's heads will do.
template <typename Finish>
void ForLogits(Context& context, absl::Span<const KvView> kv, const Tensor& queries, int left_out, bool by_group,
               const Finish& finish) {
  const int32_t layers = static_cast<int32_t>(kv.size()), heads = kv[0].layout.kv_heads;
  WindowParams p = {};
  p.step = UploadCaches(context, kv);
  p.queries = ViewRows<const float>(queries);
  p.window = static_cast<int32_t>(queries.dim(0)) / layers;
  p.group = static_cast<int32_t>(queries.dim(1)) / heads;
  p.left_out = left_out;
  p.per_query = by_group && OnTiles(p.step, p.group) ? 1 : p.group;
  p.scale = 1.0f / std::sqrt(static_cast<float>(p.step.head_dim));
  int32_t slots = 0;
  for (const KvView& view : kv) slots = std::max(slots, view.num_slots - p.left_out);
  p.stride = WholeScoreSlots(slots);
  const int64_t per_row = int64_t{p.window} * p.per_query * p.stride;
  const int32_t rows = layers * heads;
  const int32_t at_once = static_cast<int32_t>(std::clamp<int64_t>(kLogitsAtOnce / per_row, 1, rows));
  p.logits = static_cast<float*>(context.SharedScratch(static_cast<size_t>(at_once * per_row) * sizeof(float)));
  for (; p.first_row < rows; p.first_row += at_once) {
    const unsigned count = static_cast<unsigned>(std::min(at_once, rows - p.first_row));
    LaunchLogits(p, slots, count, context.cuda().stream());
    finish(p, slots, count);
  }
}

}  // namespace

size_t WindowScratchBytes(const KvBlockLayout& layout, int32_t slots, int64_t vectors) {
  // Fewer slots, or a logit for each group, let more rows work together, within the same limits.
  const int64_t per_head = vectors * WholeScoreSlots(slots);
  return static_cast<size_t>(std::max(per_head, std::min(per_head * layout.kv_heads, kLogitsAtOnce))) * sizeof(float);
}

void WindowImportance(Context& context, absl::Span<const KvView> kv, const Tensor& queries, int left_out,
                      const Tensor& out) {
  ForLogits(context, kv, queries, left_out, /*by_group=*/true, [&](const WindowParams& p, int32_t, unsigned rows) {
    const LaunchShape shape = {dim3(1, rows), kThreads, 2 * static_cast<size_t>(p.window) * sizeof(float)};
    CAIRN_LAUNCH(ImportanceKernel, context.cuda().stream(), shape, p, ViewRows<float>(out));
  });
}

void WindowAttention(Context& context, absl::Span<const KvView> kv, const Tensor& queries, WindowReduce reduce,
                     int left_out, const Tensor& out) {
  ForLogits(context, kv, queries, 0, /*by_group=*/false, [&](const WindowParams& p, int32_t slots, unsigned rows) {
    const LaunchShape by_vector = {dim3(static_cast<unsigned>(p.window * p.group), rows), kThreads};
    CAIRN_LAUNCH(SoftmaxKernel, context.cuda().stream(), by_vector, p);
    const LaunchShape by_slot = {dim3(Blocks(slots, kThreads), rows), kThreads};
    CAIRN_LAUNCH(ReduceHeadsKernel, context.cuda().stream(), by_slot, p, reduce, left_out, ViewRows<float>(out));
  });
}

}  // namespace cairn::cuda
