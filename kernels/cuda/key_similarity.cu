// R-KV's redundancy and KeyDiff: the keys' norms and their mean, each key's newest near-duplicate (newest_keys.cu), and
// the softmax of what is left. Memory grows with n. Sums that many keys add to are in fixed point, every other number
// is made by one thread or in one order, so that a head's result depends on that head alone.
#include <algorithm>
#include <cmath>
#include <type_traits>

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
constexpr int kSlots = 64;  // of a block
constexpr int kAtOnce = 4;  // keys of a team that are on their way together

// Kernels that read keys whole have a team of kTeam lanes a key, each with kElements of its elements in registers.
template <int kTeamLanes>
__device__ __forceinline__ float TeamSum(float value) {
#pragma unroll
  for (int lanes = kTeamLanes / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

// Keys of 16-bit types and codes, of D elements, 8 of them a lane.
template <int D, typename T>
struct WideKeys {
  static constexpr int kElements = 8, kTeam = D / kElements;
  int first;  // the lane's elements of a key
  __device__ __forceinline__ explicit WideKeys(const PagedStep&)
      : first(static_cast<int>(threadIdx.x) % kTeam * kElements) {}
  __device__ __forceinline__ int element(int i) const { return first + i; }
  __device__ __forceinline__ bool has(int) const { return true; }
  __device__ __forceinline__ void Load(const HeadKeys& keys, int32_t slot, float (&x)[kElements]) const {
    const PagedStep& step = keys.p.step;
    const T* key = reinterpret_cast<const T*>(step.Block(keys.s, slot)) + step.InPlane(keys.head, slot) * D + first;
    using Bits = std::conditional_t<sizeof(T) == 1, uint2, uint4>;
    const Bits bits = *reinterpret_cast<const Bits*>(key);
    const T* values = reinterpret_cast<const T*>(&bits);
#pragma unroll
    for (int i = 0; i < kElements; ++i) x[i] = ToFloat(values[i]);
  }
};

// Any type and size, a warp a key.
struct PlainKeys {
  static constexpr int kElements = 8, kTeam = kWarpSize;  // head_dim <= 256
  int lane, d;
  __device__ __forceinline__ explicit PlainKeys(const PagedStep& step)
      : lane(static_cast<int>(threadIdx.x) % kWarpSize), d(step.head_dim) {}
  __device__ __forceinline__ int element(int i) const { return lane + i * kWarpSize; }
  __device__ __forceinline__ bool has(int i) const { return element(i) < d; }
  __device__ __forceinline__ void Load(const HeadKeys& keys, int32_t slot, float (&x)[kElements]) const {
    const PagedStep& step = keys.p.step;
    const uint8_t* block = step.Block(keys.s, slot);
    const int64_t at = step.InPlane(keys.head, slot) * d;
#pragma unroll
    for (int i = 0; i < kElements; ++i) x[i] = has(i) ? ReadAs(step.dtype, block, at + element(i)) : 0;
  }
};

// Block (64 slots, row): factors, minus each key's share in its own mean, and the sum of the units.
template <typename Keys>
__global__ void __launch_bounds__(kThreads) UnitKeysKernel(KeyParams p) {
  constexpr int kTeams = kThreads / Keys::kTeam;
  CAIRN_DYNAMIC_SHARED(float, partial);  // [teams][d]
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.y));
  const Keys lanes(p.step);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kSlots, d = p.step.head_dim;
  const int32_t count = max(0, min(kSlots, keys.n - begin));
  const int thread = static_cast<int>(threadIdx.x), team = thread / Keys::kTeam;
  float sums[Keys::kElements] = {};
  for (int32_t first = team; first - team < count; first += kTeams * kAtOnce) {  // as long for all, who sum together
    float x[kAtOnce][Keys::kElements] = {};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (first + j * kTeams < count) lanes.Load(keys, begin + first + j * kTeams, x[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int32_t row = first + j * kTeams;
      float squares = 0;
#pragma unroll
      for (int i = 0; i < Keys::kElements; ++i) squares += x[j][i] * x[j][i];
      squares = TeamSum<Keys::kTeam>(squares);
      if (row >= count) continue;
      const float factor = 1.0f / (sqrtf(squares) + 1e-8f);
#pragma unroll
      for (int i = 0; i < Keys::kElements; ++i) sums[i] += x[j][i] * factor;
      if (thread % Keys::kTeam == 0) {
        const int64_t at = keys.At(begin + row);
        p.factors[at] = factor;
        p.means[at] = squares < INFINITY ? -(squares * factor * factor) / static_cast<float>(keys.n) : 0;
        p.left_out[at] = 0;
      }
    }
  }
  // The tile behind the last key.
  if (thread < kSlots && thread >= count) p.factors[keys.At(begin + thread)] = 0;
#pragma unroll
  for (int i = 0; i < Keys::kElements; ++i) {
    if (lanes.has(i)) partial[team * d + lanes.element(i)] = sums[i];
  }
  __syncthreads();
  float* to = p.sums + (static_cast<int64_t>(keys.row) * gridDim.x + blockIdx.x) * d;
  for (int32_t i = thread; i < d; i += kThreads) {
    float sum = 0;
    for (int other = 0; other < kTeams; ++other) sum += partial[other * d + i];
    to[i] = sum;
  }
}

// Block (row).
__global__ void __launch_bounds__(kThreads) MeanKernel(KeyParams p) {
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.x));
  const int32_t d = p.step.head_dim, tiles = p.stride / kSlots;
  float squares = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kThreads) {
    float sum = 0;
    for (int32_t tile = 0; tile < tiles; ++tile) sum += p.sums[(static_cast<int64_t>(keys.row) * tiles + tile) * d + i];
    const float mean = sum / static_cast<float>(keys.n);
    p.mean[static_cast<int64_t>(keys.row) * d + i] = mean;
    squares += mean * mean;
  }
  squares = BlockSum<kThreads>(squares);
  if (threadIdx.x == 0) p.mean_norm[keys.row] = sqrtf(squares);
}

// Block (64 slots, row): the mean similarity of each key (without the shares of other keys' near-duplicates, which it
// adds to their columns), and what the next call may remember.
template <typename Keys>
__global__ void __launch_bounds__(kThreads) MeanSimilarityKernel(KeyParams p, RedundancyVariant variant) {
  constexpr int kTeams = kThreads / Keys::kTeam;
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.y));
  const Keys lanes(p.step);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kSlots, end = min(begin + kSlots, keys.n);
  const int team = static_cast<int>(threadIdx.x) / Keys::kTeam;
  const bool is_first = static_cast<int>(threadIdx.x) % Keys::kTeam == 0;
  const float* mean = p.mean + static_cast<int64_t>(keys.row) * p.step.head_dim;
  float means[Keys::kElements];
#pragma unroll
  for (int i = 0; i < Keys::kElements; ++i) means[i] = lanes.has(i) ? mean[lanes.element(i)] : 0;
  for (int32_t first = begin + team; first - team < end;
       first += kTeams * kAtOnce) {  // as long for all, who sum together
    int32_t newest[kAtOnce], other[kAtOnce];
    float key[kAtOnce][Keys::kElements] = {}, other_key[kAtOnce][Keys::kElements] = {};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int32_t slot = first + j * kTeams;
      newest[j] = slot < end ? p.newest[keys.At(slot)] : kNone;
      if (slot < end) lanes.Load(keys, slot, key[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int32_t slot = first + j * kTeams;
      other[j] = newest[j] != kNone ? newest[j] : variant == RedundancyVariant::kCode ? 0 : slot;
      if (slot < end) lanes.Load(keys, other[j], other_key[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int32_t slot = first + j * kTeams;
      float mean_dot = 0, pair_dot = 0;
#pragma unroll
      for (int i = 0; i < Keys::kElements; ++i) {
        mean_dot += key[j][i] * means[i];
        pair_dot += key[j][i] * other_key[j][i];
      }
      mean_dot = TeamSum<Keys::kTeam>(mean_dot);
      pair_dot = TeamSum<Keys::kTeam>(pair_dot);
      if (!is_first || slot >= end) continue;
      if (p.remembers) {
        *keys.Memory(slot) =
            newest[j] == kNone ? KeyMemory::kAlone : *keys.Position(newest[j]) + KeyMemory::kFirstPosition;
      }
      const int64_t at = keys.At(slot);
      const float factor = p.factors[at];
      const float similar = other[j] == slot ? 0 : Similarity(pair_dot, factor, p.factors[keys.At(other[j])]);
      const float own = p.means[at] + Scaled(mean_dot, factor);
      if (variant == RedundancyVariant::kPaper) {
        p.means[at] = own - similar / static_cast<float>(keys.n);
      } else {
        p.means[at] = own;
        // Negative numbers too: their bits add up alike.
        atomicAdd(reinterpret_cast<unsigned long long*>(&p.left_out[keys.At(other[j])]),
                  static_cast<unsigned long long>(ToFixedPoint(similar)));
      }
    }
  }
}

constexpr int kSoftmaxThreads = 256;

// Block (row): of all but the last `missing` of the n numbers.
__global__ void __launch_bounds__(kSoftmaxThreads)
    FinishKernel(KeyParams p, RedundancyVariant variant, int32_t missing, RowView<float> out) {
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.x));
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  float* means = p.means + keys.At(0);
  const int64_t* left_out = p.left_out + keys.At(0);
  const double share = 1 / (kFixedPointOne * keys.n);
  float most = -INFINITY;
  for (int32_t i = thread; i < keys.n; i += kSoftmaxThreads) {
    if (variant == RedundancyVariant::kCode) means[i] -= static_cast<float>(static_cast<double>(left_out[i]) * share);
    most = fmaxf(most, means[i]);
  }
  most = BlockMax<kSoftmaxThreads>(most);
  float sum = 0;
  for (int32_t i = thread; i < keys.n; i += kSoftmaxThreads) {
    means[i] = expf(means[i] - most);
    sum += means[i];
  }
  const float factor = 1.0f / BlockSum<kSoftmaxThreads>(sum);
  for (int32_t i = thread; i < keys.n - missing; i += kSoftmaxThreads) out.row(keys.row)[i] = means[i] * factor;
}

// Block (64 slots, row).
template <typename Keys>
__global__ void __launch_bounds__(kThreads) DifferenceKernel(KeyParams p, int32_t missing, RowView<float> out) {
  constexpr int kTeams = kThreads / Keys::kTeam;
  const HeadKeys keys(p, static_cast<int32_t>(blockIdx.y));
  const Keys lanes(p.step);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kSlots, end = min(begin + kSlots, keys.n - missing);
  const int team = static_cast<int>(threadIdx.x) / Keys::kTeam;
  const float* mean = p.mean + static_cast<int64_t>(keys.row) * p.step.head_dim;
  const float scale = -1.0f / (p.mean_norm[keys.row] + 1e-8f);
  for (int32_t slot = begin + team; slot - team < end; slot += kTeams) {  // as long for all, who sum together
    float key[Keys::kElements] = {};
    if (slot < end) lanes.Load(keys, slot, key);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < Keys::kElements; ++i) {
      if (lanes.has(i)) dot += key[i] * mean[lanes.element(i)];
    }
    dot = TeamSum<Keys::kTeam>(dot);
    if (static_cast<int>(threadIdx.x) % Keys::kTeam == 0 && slot < end) {
      out.row(keys.row)[slot] = Scaled(dot, p.factors[keys.At(slot)]) * scale;
    }
  }
}

// launch(Keys()) with how the keys are read.
template <typename Function>
void WithKeys(const PagedStep& step, const Function& launch) {
  CAIRN_CHECK(step.head_dim <= 256, "keys on a GPU: head_dim ", step.head_dim, ", at most 256");
  const bool is_64 = step.head_dim == 64, is_128 = step.head_dim == 128;
  if (step.dtype == DType::kBFloat16 && is_64) return launch.template operator()<WideKeys<64, __nv_bfloat16>>();
  if (step.dtype == DType::kBFloat16 && is_128) return launch.template operator()<WideKeys<128, __nv_bfloat16>>();
  if (step.dtype == DType::kFloat16 && is_64) return launch.template operator()<WideKeys<64, __half>>();
  if (step.dtype == DType::kFloat16 && is_128) return launch.template operator()<WideKeys<128, __half>>();
  if (step.dtype == DType::kFloat8E4M3 && is_64) return launch.template operator()<WideKeys<64, __nv_fp8_e4m3>>();
  if (step.dtype == DType::kFloat8E4M3 && is_128) return launch.template operator()<WideKeys<128, __nv_fp8_e4m3>>();
  launch.template operator()<PlainKeys>();
}

static_assert(kSlots == kScoreSlots);

// Of all layers' heads.
unsigned Rows(absl::Span<const KvView> kv) {
  return static_cast<unsigned>(kv.size()) * static_cast<unsigned>(kv[0].layout.kv_heads);
}
dim3 BySlots(const KeyParams& p, unsigned rows) { return dim3(static_cast<unsigned>(p.stride / kSlots), rows); }

// The keys but each layer's last `left_out`, with factors and mean.
KeyParams FindUnits(Context& context, absl::Span<const KvView> kv, int32_t left_out) {
  KeyParams p = {};
  p.step = UploadCaches(context, kv);
  p.left_out_slots = left_out;
  for (const KvView& view : kv) p.stride = std::max(p.stride, WholeScoreSlots(view.num_slots - left_out));
  const size_t rows = Rows(kv), d = static_cast<size_t>(kv[0].layout.head_dim);
  const size_t slots = rows * static_cast<size_t>(p.stride);
  p.left_out = static_cast<int64_t*>(
      context.SharedScratch(KeyScratchBytes(kv[0].layout, p.stride * static_cast<int32_t>(kv.size()))));
  p.factors = reinterpret_cast<float*>(p.left_out + slots);
  p.means = p.factors + slots;
  p.newest = reinterpret_cast<int32_t*>(p.means + slots);
  p.sums = reinterpret_cast<float*>(p.newest + slots);
  p.mean = p.sums + slots / kSlots * d;
  p.mean_norm = p.mean + rows * d;
  WithKeys(p.step, [&]<typename Keys>() {
    const LaunchShape shape = {BySlots(p, Rows(kv)), kThreads, kThreads / Keys::kTeam * d * sizeof(float)};
    CAIRN_LAUNCH(UnitKeysKernel<Keys>, context.cuda().stream(), shape, p);
  });
  CAIRN_LAUNCH(MeanKernel, context.cuda().stream(), {Rows(kv), kThreads}, p);
  return p;
}

}  // namespace

size_t KeyScratchBytes(const KvBlockLayout& layout, int32_t slots) {
  const size_t heads = static_cast<size_t>(layout.kv_heads), d = static_cast<size_t>(layout.head_dim);
  const size_t total = heads * static_cast<size_t>(WholeScoreSlots(slots));
  // At most as many layers as tiles.
  return total * (sizeof(int64_t) + 3 * sizeof(float)) + total / kSlots * (2 * d + 1) * sizeof(float);
}

void KeyRedundancy(Context& context, absl::Span<const KvView> kv, int window, float threshold,
                   RedundancyVariant variant, bool remembers, const Tensor& out) {
  const cudaStream_t stream = context.cuda().stream();
  const int32_t left_out = variant == RedundancyVariant::kCode ? 0 : window;
  KeyParams p = FindUnits(context, kv, left_out);
  p.threshold = threshold;
  p.remembers = remembers;
  LaunchFindNewest(p, Rows(kv), stream);
  WithKeys(p.step, [&]<typename Keys>() {
    CAIRN_LAUNCH(MeanSimilarityKernel<Keys>, stream, {BySlots(p, Rows(kv)), kThreads}, p, variant);
  });
  CAIRN_LAUNCH(FinishKernel, stream, {Rows(kv), kSoftmaxThreads}, p, variant, window - left_out, ViewRows<float>(out));
}

void KeyDifference(Context& context, absl::Span<const KvView> kv, int window, const Tensor& out) {
  const KeyParams p = FindUnits(context, kv, 0);
  WithKeys(p.step, [&]<typename Keys>() {
    CAIRN_LAUNCH(DifferenceKernel<Keys>, context.cuda().stream(), {BySlots(p, Rows(kv)), kThreads}, p, window,
                 ViewRows<float>(out));
  });
}

}  // namespace cairn::cuda
