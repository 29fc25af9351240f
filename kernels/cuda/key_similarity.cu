// R-KV's redundancy and KeyDiff: the keys' norms and their mean, each key's newest near-duplicate (newest_keys.cu), and
// the softmax of what is left. Memory grows with n. Sums that many keys add to are in fixed point, every other number
// is made by one thread or in one order, so that a head's result depends on that head alone.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/fixed_point.h"
#include "kernels/cuda/key_similarity.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/score_scratch.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kSlots = 64;  // of a block

// The elements of one key.
struct Key {
  DType dtype;
  const uint8_t* block;
  int64_t first;

  __device__ __forceinline__ Key(const PagedStep& step, const PagedSequence& s, int32_t head, int32_t slot)
      : dtype(step.dtype), block(step.Block(s, slot)), first(step.InPlane(head, slot) * step.head_dim) {}
  __device__ __forceinline__ float operator[](int32_t i) const { return ReadAs(dtype, block, first + i); }
};

// Block (64 slots, head): factors, minus each key's share in its own mean, and the sum of the units.
__global__ void __launch_bounds__(kThreads) UnitKeysKernel(KeyParams p) {
  CAIRN_SHARED(float, factors, [kSlots]);
  const PagedSequence s = p.step.sequences[0];
  const int32_t head = static_cast<int32_t>(blockIdx.y), begin = static_cast<int32_t>(blockIdx.x) * kSlots;
  const int32_t d = p.step.head_dim, count = min(kSlots, p.n - begin);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  for (int32_t row = thread / kWarpSize; row < count; row += kWarps) {
    const Key key(p.step, s, head, begin + row);
    float squares = 0;
    for (int32_t i = lane; i < d; i += kWarpSize) squares += key[i] * key[i];
    squares = WarpSum(squares);
    if (lane != 0) continue;
    const float factor = 1.0f / (sqrtf(squares) + 1e-8f);
    const int64_t at = p.At(head, begin + row);
    factors[row] = factor;
    p.factors[at] = factor;
    p.means[at] = squares < INFINITY ? -(squares * factor * factor) / static_cast<float>(p.n) : 0;
    p.left_out[at] = 0;
  }
  // The tile behind the last key.
  if (thread < kSlots && thread >= count) p.factors[p.At(head, begin + thread)] = 0;
  __syncthreads();
  float* sums = p.sums + (static_cast<int64_t>(head) * gridDim.x + blockIdx.x) * d;
  for (int32_t i = thread; i < d; i += kThreads) {
    float sum = 0;
    for (int32_t row = 0; row < count; ++row) sum += Key(p.step, s, head, begin + row)[i] * factors[row];
    sums[i] = sum;
  }
}

// Block (head).
__global__ void __launch_bounds__(kThreads) MeanKernel(KeyParams p) {
  const int32_t head = static_cast<int32_t>(blockIdx.x), d = p.step.head_dim, tiles = p.stride / kSlots;
  float squares = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kThreads) {
    float sum = 0;
    for (int32_t tile = 0; tile < tiles; ++tile) sum += p.sums[(static_cast<int64_t>(head) * tiles + tile) * d + i];
    const float mean = sum / static_cast<float>(p.n);
    p.mean[static_cast<int64_t>(head) * d + i] = mean;
    squares += mean * mean;
  }
  squares = BlockSum<kThreads>(squares);
  if (threadIdx.x == 0) p.mean_norm[head] = sqrtf(squares);
}

// Block (64 slots, head): the mean similarity of each key (without the shares of other keys' near-duplicates, which it
// adds to their columns), and what the next call may remember.
__global__ void __launch_bounds__(kThreads) MeanSimilarityKernel(KeyParams p, RedundancyVariant variant) {
  const PagedSequence s = p.step.sequences[0];
  const int32_t head = static_cast<int32_t>(blockIdx.y), begin = static_cast<int32_t>(blockIdx.x) * kSlots;
  const int32_t d = p.step.head_dim, end = min(begin + kSlots, p.n);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const float* mean = p.mean + static_cast<int64_t>(head) * d;
  for (int32_t slot = begin + static_cast<int32_t>(threadIdx.x) / kWarpSize; slot < end; slot += kWarps) {
    int32_t newest = p.newest[p.At(head, slot)];
    if (p.remembers && lane == 0) {
      *p.Memory(s, head, slot) =
          newest == kNone ? KeyMemory::kAlone : *p.step.Position(s, head, newest) + KeyMemory::kFirstPosition;
    }
    if (newest == kNone && variant == RedundancyVariant::kCode) newest = 0;
    const int32_t other = newest == kNone ? slot : newest;
    const Key key(p.step, s, head, slot), other_key(p.step, s, head, other);
    float mean_dot = 0, pair_dot = 0;
    for (int32_t i = lane; i < d; i += kWarpSize) {
      mean_dot += key[i] * mean[i];
      pair_dot += key[i] * other_key[i];
    }
    mean_dot = WarpSum(mean_dot);
    pair_dot = WarpSum(pair_dot);
    if (lane != 0) continue;
    const int64_t at = p.At(head, slot);
    const float factor = p.factors[at];
    const float similar = other == slot ? 0 : Similarity(pair_dot, factor, p.factors[p.At(head, other)]);
    float& own = p.means[at];
    own = Scaled(mean_dot, factor) + own;
    if (variant == RedundancyVariant::kPaper) {
      own -= similar / static_cast<float>(p.n);
    } else {
      // Negative numbers too: their bits add up alike.
      atomicAdd(reinterpret_cast<unsigned long long*>(&p.left_out[p.At(head, other)]),
                static_cast<unsigned long long>(ToFixedPoint(similar)));
    }
  }
}

constexpr int kSoftmaxThreads = 256;

// Block (head).
__global__ void __launch_bounds__(kSoftmaxThreads)
    FinishKernel(KeyParams p, RedundancyVariant variant, int32_t columns, RowView<float> out) {
  const int32_t head = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  float* means = p.means + p.At(head, 0);
  const int64_t* left_out = p.left_out + p.At(head, 0);
  const double share = 1 / (kFixedPointOne * p.n);
  float most = -INFINITY;
  for (int32_t i = thread; i < p.n; i += kSoftmaxThreads) {
    if (variant == RedundancyVariant::kCode) means[i] -= static_cast<float>(static_cast<double>(left_out[i]) * share);
    most = fmaxf(most, means[i]);
  }
  most = BlockMax<kSoftmaxThreads>(most);
  float sum = 0;
  for (int32_t i = thread; i < p.n; i += kSoftmaxThreads) {
    means[i] = expf(means[i] - most);
    sum += means[i];
  }
  const float factor = 1.0f / BlockSum<kSoftmaxThreads>(sum);
  for (int32_t i = thread; i < columns; i += kSoftmaxThreads) out.row(head)[i] = means[i] * factor;
}

// Block (64 slots, head).
__global__ void __launch_bounds__(kThreads) DifferenceKernel(KeyParams p, int32_t columns, RowView<float> out) {
  const PagedSequence s = p.step.sequences[0];
  const int32_t head = static_cast<int32_t>(blockIdx.y), begin = static_cast<int32_t>(blockIdx.x) * kSlots;
  const int32_t d = p.step.head_dim, end = min(begin + kSlots, columns);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const float* mean = p.mean + static_cast<int64_t>(head) * d;
  const float scale = -1.0f / (p.mean_norm[head] + 1e-8f);
  for (int32_t slot = begin + static_cast<int32_t>(threadIdx.x) / kWarpSize; slot < end; slot += kWarps) {
    const Key key(p.step, s, head, slot);
    float dot = 0;
    for (int32_t i = lane; i < d; i += kWarpSize) dot += key[i] * mean[i];
    dot = WarpSum(dot);
    if (lane == 0) out.row(head)[slot] = Scaled(dot, p.factors[p.At(head, slot)]) * scale;
  }
}

int32_t StrideFor(int32_t n) { return (n + kSlots - 1) / kSlots * kSlots; }

dim3 BySlots(const KeyParams& p) {
  return dim3(static_cast<unsigned>(p.stride / kSlots), static_cast<unsigned>(p.step.kv_heads));
}

// The first n keys, with factors and mean.
KeyParams FindUnits(Context& context, const KvView& kv, int32_t n) {
  KeyParams p = {};
  p.step = UploadCache(context, kv);
  p.n = n;
  p.stride = StrideFor(n);
  const size_t heads = static_cast<size_t>(kv.layout.kv_heads), d = static_cast<size_t>(kv.layout.head_dim);
  const size_t slots = heads * static_cast<size_t>(p.stride);
  p.left_out = static_cast<int64_t*>(context.SharedScratch(KeyScratchBytes(kv.layout, n)));
  p.factors = reinterpret_cast<float*>(p.left_out + slots);
  p.means = p.factors + slots;
  p.newest = reinterpret_cast<int32_t*>(p.means + slots);
  p.sums = reinterpret_cast<float*>(p.newest + slots);
  p.mean = p.sums + slots / kSlots * d;
  p.mean_norm = p.mean + heads * d;
  CAIRN_LAUNCH(UnitKeysKernel, context.cuda().stream(), {BySlots(p), kThreads}, p);
  CAIRN_LAUNCH(MeanKernel, context.cuda().stream(), {static_cast<unsigned>(heads), kThreads}, p);
  return p;
}

}  // namespace

size_t KeyScratchBytes(const KvBlockLayout& layout, int32_t n) {
  const size_t heads = static_cast<size_t>(layout.kv_heads), d = static_cast<size_t>(layout.head_dim);
  const size_t slots = heads * static_cast<size_t>(StrideFor(n));
  return slots * (sizeof(int64_t) + 3 * sizeof(float)) + (slots / kSlots * d + heads * (d + 1)) * sizeof(float);
}

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out) {
  const cudaStream_t stream = context.cuda().stream();
  const int32_t columns = static_cast<int32_t>(out.dim(1));
  KeyParams p = FindUnits(context, kv, variant == RedundancyVariant::kCode ? kv.num_slots : columns);
  p.threshold = threshold;
  p.remembers = remembers;
  LaunchFindNewest(p, stream);
  CAIRN_LAUNCH(MeanSimilarityKernel, stream, {BySlots(p), kThreads}, p, variant);
  CAIRN_LAUNCH(FinishKernel, stream, {static_cast<unsigned>(kv.layout.kv_heads), kSoftmaxThreads}, p, variant, columns,
               ViewRows<float>(out));
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  const KeyParams p = FindUnits(context, kv, kv.num_slots);
  CAIRN_LAUNCH(DifferenceKernel, context.cuda().stream(), {BySlots(p), kThreads}, p, static_cast<int32_t>(out.dim(1)),
               ViewRows<float>(out));
}

}  // namespace cairn::cuda
