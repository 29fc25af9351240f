#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/storage.h"
#include "kernels/ops/sample.h"

namespace cairn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kChunk = static_cast<int>(kSampleChunk);
constexpr int kPerThread = kChunk / kThreads;

// What kernels/ops/sample.h has for the host.
__device__ __forceinline__ int64_t KeyOf(float logit, int token) {
  const unsigned bits = __float_as_uint(logit == logit ? logit + 0.0f : -INFINITY);
  const unsigned ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<int64_t>(static_cast<uint64_t>(ordered) << 31 | static_cast<unsigned>(0x7fffffff - token));
}
__device__ __forceinline__ int TokenOf(int64_t key) { return 0x7fffffff - static_cast<int>(key & 0x7fffffff); }
__device__ __forceinline__ float LogitOf(int64_t key) {
  const unsigned ordered = static_cast<unsigned>(key >> 31);
  return __uint_as_float(ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered);
}

// A row's logits as weights.
struct Weights {
  const float* logits;
  float inverse_temperature, scaled_max;

  __device__ __forceinline__ int64_t at(int i) const {
    const float scaled = __fmul_rn(logits[i], inverse_temperature) - scaled_max;  // two roundings, as on the CPU
    return scaled == scaled ? static_cast<int64_t>(expf(scaled) * kSampleWeightOne) : 0;
  }
};

__device__ __forceinline__ bool IsGreedy(int64_t best, float inverse_temperature) {
  return inverse_temperature == 0.0f || !(fabsf(LogitOf(best) * inverse_temperature) < INFINITY);
}

__device__ __forceinline__ Weights WeightsOf(const float* logits, int64_t best, float inverse_temperature) {
  return {logits, inverse_temperature, LogitOf(best) * inverse_temperature};
}

// Block (row, chunk), in all but the last kernel. `best` starts as zero.
__global__ void __launch_bounds__(kThreads)
    BestKernel(RowView<const float> logits, int vocab, int vocab_begin, int64_t* best) {
  const float* row = logits.row(blockIdx.x);
  const int begin = static_cast<int>(blockIdx.y) * kChunk, end = min(vocab, begin + kChunk);
  int64_t key = 0;
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
    key = max(key, KeyOf(row[i], vocab_begin + i));
  }
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    key = max(key, __shfl_xor_sync(kAllLanes, key, lanes));
  }
  if (threadIdx.x % kWarpSize == 0) {
    atomicMax(reinterpret_cast<long long*>(best + blockIdx.x), static_cast<long long>(key));
  }
}

__global__ void __launch_bounds__(kThreads) TotalsKernel(RowView<const float> logits, int vocab, const int64_t* best,
                                                         const float* inverse_temperature, int64_t* totals) {
  CAIRN_SHARED(int64_t, partial, [kWarps]);
  const int begin = static_cast<int>(blockIdx.y) * kChunk, end = min(vocab, begin + kChunk);
  int64_t sum = 0;
  if (!IsGreedy(best[blockIdx.x], inverse_temperature[blockIdx.x])) {
    const Weights weights = WeightsOf(logits.row(blockIdx.x), best[blockIdx.x], inverse_temperature[blockIdx.x]);
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) sum += weights.at(i);
  }
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kWarps; ++warp) sum += partial[warp];
  totals[static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y] = sum;
}

struct SampleParameters {
  const int64_t* best;
  const float* inverse_temperature;
  const int64_t* fractions;
  const int64_t* totals;  // [ranks, rows, chunks]
  int64_t* tokens;
  int ranks, rows, chunks;
  int rank, vocab, vocab_begin;

  __device__ __forceinline__ int64_t Total(int of_rank, int row, int chunk) const {
    return totals[(static_cast<int64_t>(of_rank) * rows + row) * chunks + chunk];
  }
};

// Which chunk of this rank's the target falls into (-1: none), and what is left of it there.
struct Place {
  int chunk;
  int64_t left;
};

__device__ Place FindChunk(const SampleParameters& p, int row) {
  int64_t total = 0, before = 0;
  for (int rank = 0; rank < p.ranks; ++rank) {
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      const int64_t sum = p.Total(rank, row, chunk);
      total += sum;
      before += rank < p.rank ? sum : 0;
    }
  }
  const uint64_t target = __umul64hi(static_cast<uint64_t>(total), static_cast<uint64_t>(p.fractions[row]));
  int64_t left = static_cast<int64_t>(target) - before;
  if (left < 0) return {-1, 0};
  for (int chunk = 0; chunk < p.chunks; ++chunk) {
    const int64_t sum = p.Total(p.rank, row, chunk);
    if (left < sum) return {chunk, left};
    left -= sum;
  }
  return {-1, 0};
}

// One block a row: its first thread finds the chunk, then each searches kPerThread logits of it.
__global__ void __launch_bounds__(kThreads) TokensKernel(RowView<const float> logits, SampleParameters p) {
  CAIRN_SHARED(Place, place);
  CAIRN_SHARED(int64_t, warp_sums, [kWarps]);
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int64_t best = p.best[row];
  const float inverse_temperature = p.inverse_temperature[row];
  if (IsGreedy(best, inverse_temperature)) {
    if (thread == 0) p.tokens[row] = TokenOf(best);
    return;
  }
  if (thread == 0) {
    place = FindChunk(p, row);
    if (place.chunk < 0) p.tokens[row] = -1;
  }
  __syncthreads();
  if (place.chunk < 0) return;
  const Weights weights = WeightsOf(logits.row(row), best, inverse_temperature);
  const int begin = place.chunk * kChunk + thread * kPerThread, end = min(p.vocab, begin + kPerThread);
  int64_t own = 0;
  for (int i = begin; i < end; ++i) own += weights.at(i);
  int64_t through = own;
#pragma unroll
  for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
    const int64_t before = __shfl_up_sync(kAllLanes, through, static_cast<unsigned>(lanes));
    if (thread % kWarpSize >= lanes) through += before;
  }
  if (thread % kWarpSize == kWarpSize - 1) warp_sums[thread / kWarpSize] = through;
  __syncthreads();
  for (int warp = 0; warp < thread / kWarpSize; ++warp) through += warp_sums[warp];
  int64_t left = place.left - (through - own);
  if (left < 0 || left >= own) return;  // it is another thread's
  int i = begin;
  for (int64_t weight = weights.at(i); left >= weight; weight = weights.at(++i)) left -= weight;
  p.tokens[row] = p.vocab_begin + i;
}

LaunchShape ByChunks(const Tensor& logits, int64_t chunks) {
  return {dim3(static_cast<unsigned>(logits.dim(0)), static_cast<unsigned>(chunks)), kThreads};
}

}  // namespace

void BestTokens(Context& context, const Tensor& logits, int64_t vocab_begin, const Tensor& best) {
  context.cuda().Clear(best.raw(), best.size_bytes(), best.size_bytes(), 1);
  if (logits.dim(1) == 0) return;
  CAIRN_LAUNCH(BestKernel, context.cuda().stream(), ByChunks(logits, NumSampleChunks(logits.dim(1))),
               ViewRows<const float>(logits), static_cast<int>(logits.dim(1)), static_cast<int>(vocab_begin),
               best.data<int64_t>());
}

void SampleTotals(Context& context, const Tensor& logits, const Tensor& best, const Tensor& inverse_temperature,
                  const Tensor& totals) {
  CAIRN_LAUNCH(TotalsKernel, context.cuda().stream(), ByChunks(logits, totals.dim(1)), ViewRows<const float>(logits),
               static_cast<int>(logits.dim(1)), static_cast<const int64_t*>(best.data<int64_t>()),
               static_cast<const float*>(inverse_temperature.data<float>()), totals.data<int64_t>());
}

void SampleTokens(Context& context, const Tensor& logits, int64_t vocab_begin, int rank, const Tensor& best,
                  const Tensor& inverse_temperature, const Tensor& fractions, const Tensor& totals,
                  const Tensor& tokens) {
  const SampleParameters parameters = {.best = best.data<int64_t>(),
                                       .inverse_temperature = inverse_temperature.data<float>(),
                                       .fractions = fractions.data<int64_t>(),
                                       .totals = totals.data<int64_t>(),
                                       .tokens = tokens.data<int64_t>(),
                                       .ranks = static_cast<int>(totals.dim(0)),
                                       .rows = static_cast<int>(totals.dim(1)),
                                       .chunks = static_cast<int>(totals.dim(2)),
                                       .rank = rank,
                                       .vocab = static_cast<int>(logits.dim(1)),
                                       .vocab_begin = static_cast<int>(vocab_begin)};
  const LaunchShape shape = {static_cast<unsigned>(totals.dim(1)), kThreads};
  CAIRN_LAUNCH(TokensKernel, context.cuda().stream(), shape, ViewRows<const float>(logits), parameters);
}

}  // namespace cairn::cuda
