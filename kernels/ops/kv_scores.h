// The terms that compression's scorers are made of: what the slots of one layer of one sequence are worth, per KV head.
//
// n = kv.num_slots; w, the window, = the rows of `queries` [w, kv_heads * group, d] f32, post-RoPE, row r being the
// query of the token in slot n - w + r. The m = n - w slots before the window are the candidates. All arithmetic is
// float32 whatever the type of the cache, and a head's numbers depend on that head alone. Memory beyond the operands
// grows with n, never with n x n.
#ifndef CAIRN_KERNELS_OPS_KV_SCORES_H_
#define CAIRN_KERNELS_OPS_KV_SCORES_H_

#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// On a GPU: takes the memory that the ops below need for a layer of up to `slots` slots and `vectors` query vectors
// (w x group) for each KV head, so that they never allocate. On CPU memory comes when it is needed.
void ReserveScoreMemory(Context& context, const KvBlockLayout& layout, int32_t slots, int64_t vectors);

// R-KV's importance before pooling (arXiv 2505.24133; COMPRESSION section 2, steps 1-4): the largest logit of a group's
// heads, its softmax over the candidates, the mean over the w queries. out [kv_heads, m].
void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out);

// How the attention P[r, g, i] of w queries of a group's G heads becomes one number per slot.
enum class WindowReduce {
  kMeanOfHeads,   // sum over r, then the mean over g (in fixed point, so exact in any order)
  kSumOfHeads,    // sum over r and g (likewise)
  kMaxOfHeads,    // sum over r, then the largest g
  kMeanOfMaxima,  // the largest g of each r, then the mean over r
};

// P[r, g, i]: softmax over the slots i <= n - w + r of query r's logits (SnapKV's observation window, arXiv 2404.14469;
// COMPRESSION section 3). out [kv_heads, columns]: of slots 0 .. columns - 1, columns <= n.
void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce, const Tensor& out);

enum class RedundancyVariant {
  kCode,   // as published: over all n slots, column means; a key without a similar one clears column 0
  kPaper,  // over the candidates, row means; a key without a similar one clears nothing
};

// R-KV's redundancy: softmax of how similar a key is to the others on average, when each key's most recent
// near-duplicate (cosine > threshold) is left out. out [kv_heads, m]; the window is what is missing to n.
//
// `remembers` (kCode alone): the running-score plane (KvBlockLayout::has_score, 0 in a new slot, moving with its slot)
// is this op's own from call to call. It holds where each key's near-duplicate was, so that the next call looks at
// pairs with a new key and at keys whose near-duplicate has gone, not at all pairs again. The result is the same, bit
// for bit; the threshold must be too.
void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out);

// KeyDiff (arXiv 2504.15364): minus the cosine between a key and the mean of all n normalised keys. out [kv_heads, m].
void KeyDifference(Context& context, const KvView& kv, const Tensor& out);

// out[h, i] = i / num_slots: the later, the higher (StreamingLLM, arXiv 2309.17453).
void SlotRecency(Context& context, int32_t num_slots, const Tensor& out);

// out[h, i] = UniformOfToken(layer, first_kv_head + h, position of the token in slot i) (kernels/core/token_hash.h).
void RandomScores(Context& context, const KvView& kv, int32_t layer, int32_t first_kv_head, const Tensor& out);

enum class Pooling {
  kMax,      // the borders count as -infinity
  kAverage,  // the borders count as zero and in the divisor
};

// out[h, i] of x[h, i - kernel_size / 2 .. i + kernel_size / 2]; kernel_size is odd. x and out must not overlap.
void PoolSlots(Context& context, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out);

// Every row divided by its maximum, in place; rows without a positive number are left alone.
void DivideByRowMax(Context& context, const Tensor& x);

// out = a x + b y, all [rows, columns]; out may be x or y.
void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out);

// The running scores in the cache (KvBlockLayout::has_score). `scores` [kv_heads, m] receives those of the candidates.
// H2O: slot i's running score += factor * added[h, i], for all n slots (added [kv_heads, n]).
void AddToRunningScores(Context& context, const KvView& kv, float factor, const Tensor& added, const Tensor& scores);
// G-KV (arXiv 2512.00504): slot i's running score = max(decay * itself, current[h, i]), for the m candidates.
void DecayRunningScores(Context& context, const KvView& kv, float decay, const Tensor& current, const Tensor& scores);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_KV_SCORES_H_
