// A token for each row of logits, greedy or drawn at a temperature, where every rank has the logits of a part of the
// vocabulary and keeps them: what travels between the ranks is a few words a row (parallel/shard/parallel_sample.h puts
// the steps together).
//
// The draw inverts the distribution function, with integers for weights, so that neither the order of the sums nor the
// cut of the vocabulary changes the token:
//
//   weight[i] = floor(2^38 exp(l[i] / T - max l / T)), 0 where l[i] is NaN;    total = sum of all
//   token = the least i with weight[0] + ... + weight[i] > floor(total u),    u = fraction / 2^64
//
// (exp in float32; devices may differ in its last bit, which changes a token when u falls that near to a boundary.)
// Without a finite largest l / T, or with 1 / T = 0, the token is the greedy one: the first of the largest; NaN counts
// as -infinity.
#ifndef CAIRN_KERNELS_OPS_SAMPLE_H_
#define CAIRN_KERNELS_OPS_SAMPLE_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// Logits whose weights are summed into one number, to be searched later.
inline constexpr int64_t kSampleChunk = 4096;

inline int64_t NumSampleChunks(int64_t vocab) { return (vocab + kSampleChunk - 1) / kSampleChunk; }

inline constexpr float kSampleWeightOne = 0x1p38f;  // of 2^24 tokens the sum fits 63 bits

// weight[i], of l[i] / T - max l / T.
inline int64_t SampleWeight(float scaled) {
  return scaled == scaled ? static_cast<int64_t>(std::exp(scaled) * kSampleWeightOne) : 0;
}

// floor(total * fraction / 2^64).
inline int64_t SampleTarget(int64_t total, uint64_t fraction) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<int64_t>(static_cast<Wide>(static_cast<uint64_t>(total)) * fraction >> 64);
}

// A logit and its token as one number: the larger logit is more, of equals the lower token; more than zero.
inline int64_t SampleKey(float logit, int32_t token) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit == logit ? logit + 0.0f : -INFINITY);  // -0 + 0 = 0
  const uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<int64_t>(uint64_t{ordered} << 31 | static_cast<uint32_t>(INT32_MAX - token));
}
inline int32_t SampleKeyToken(int64_t key) { return INT32_MAX - static_cast<int32_t>(key & INT32_MAX); }
inline float SampleKeyLogit(int64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 31);
  return std::bit_cast<float>(ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered);
}

// In all of these logits [M, V] f32 are those of the tokens from vocab_begin on, rows may be strided, V may be 0; the
// others are contiguous.

// best [M] int64: the largest SampleKey of each row, 0 of no logits.
void BestTokens(Context& context, const Tensor& logits, int64_t vocab_begin, const Tensor& best);

// totals [M, chunks] int64, chunks >= NumSampleChunks(V): the sum of weights of each chunk of kSampleChunk logits.
// best [M] of all ranks; inverse_temperature [M] f32, 0 for greedy rows (of which the totals are zero).
void SampleTotals(Context& context, const Tensor& logits, const Tensor& best, const Tensor& inverse_temperature,
                  const Tensor& totals);

// tokens [M] int64, -1 where the row's token is another rank's. totals [ranks, M, chunks] of all ranks, in the order of
// their parts of the vocabulary; fractions [M] int64, the bits of 64-bit unsigned numbers.
void SampleTokens(Context& context, const Tensor& logits, int64_t vocab_begin, int rank, const Tensor& best,
                  const Tensor& inverse_temperature, const Tensor& fractions, const Tensor& totals,
                  const Tensor& tokens);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_SAMPLE_H_
