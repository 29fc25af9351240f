// The terms that compression's scorers are made of: what the slots of layers are worth, per KV head.
//
// An op takes any number of layers at once, of one sequence or of several, all of one cache: a GPU works on them
// together, a CPU on one after the other. A layer's numbers depend on that layer alone, whatever comes with it, and a
// head's on that head. Matrices have kv_heads rows for each layer, one layer after the other, and at least as many
// columns as its longest layer needs; what lies in a row beyond the layer's own columns is any number.
//
// n = a layer's num_slots; w, the window, is the same for all: queries [layers * w, kv_heads * group, d] f32,
// post-RoPE, row r of a layer being the query of the token in slot n - w + r. The m = n - w slots before the window are
// the candidates. All arithmetic is float32 whatever the type of the cache. Memory beyond the operands grows with n,
// never with n x n.
#ifndef CAIRN_KERNELS_OPS_KV_SCORES_H_
#define CAIRN_KERNELS_OPS_KV_SCORES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// On a GPU: takes the memory that the ops below need for layers of up to `slots` slots together, each counted as the
// longest of them and in whole units of kScoreSlots, and `vectors` query vectors (w x group) for each KV head, so that
// they never allocate. On CPU memory comes when it is needed.
inline constexpr int32_t kScoreSlots = 64;
inline int32_t WholeScoreSlots(int32_t slots) { return (slots + kScoreSlots - 1) / kScoreSlots * kScoreSlots; }
void ReserveScoreMemory(Context& context, const KvBlockLayout& layout, int32_t slots, int64_t vectors);

// R-KV's importance before pooling (arXiv 2505.24133; COMPRESSION section 2, steps 1-4): the largest logit of a group's
// heads, its softmax over all slots but the last `left_out` (w: the candidates), the mean over the w queries, of which
// none is masked. out [layers * kv_heads, n - left_out].
void WindowImportance(Context& context, absl::Span<const KvView> kv, const Tensor& queries, int left_out,
                      const Tensor& out);

// How the attention P[r, g, i] of w queries of a group's G heads becomes one number per slot.
enum class WindowReduce {
  kMeanOfHeads,   // sum over r, then the mean over g (in fixed point, so exact in any order)
  kSumOfHeads,    // sum over r and g (likewise)
  kMaxOfHeads,    // sum over r, then the largest g
  kMeanOfMaxima,  // the largest g of each r, then the mean over r
};

// P[r, g, i]: softmax over the slots i <= n - w + r of query r's logits (SnapKV's observation window, arXiv 2404.14469;
// COMPRESSION section 3). out [layers * kv_heads, n - left_out]: without the last `left_out` slots (w: the candidates).
void WindowAttention(Context& context, absl::Span<const KvView> kv, const Tensor& queries, WindowReduce reduce,
                     int left_out, const Tensor& out);

enum class RedundancyVariant {
  kCode,   // as published: over all n slots, column means; a key without a similar one clears column 0
  kPaper,  // over the candidates, row means; a key without a similar one clears nothing
};

// R-KV's redundancy: softmax of how similar a key is to the others on average, when each key's most recent
// near-duplicate (cosine > threshold) is left out. out [layers * kv_heads, m].
//
// `remembers` (kCode alone): the running-score plane (the first of KvBlockLayout::num_scores, 0 in a new slot, moving
// with its slot) is this op's own from call to call. It holds where each key's near-duplicate was, so that the next
// call looks at pairs with a new key and at keys whose near-duplicate has gone, not at all pairs again. The result is
// the same, bit for bit; the threshold must be too.
void KeyRedundancy(Context& context, absl::Span<const KvView> kv, int window, float threshold,
                   RedundancyVariant variant, bool remembers, const Tensor& out);

// KeyDiff (arXiv 2504.15364): minus the cosine between a key and the mean of all n normalised keys. out [layers *
// kv_heads, m].
void KeyDifference(Context& context, absl::Span<const KvView> kv, int window, const Tensor& out);

// out[h, i] = i / n: the later, the higher (StreamingLLM, arXiv 2309.17453). out [layers * kv_heads, columns].
void SlotRecency(Context& context, absl::Span<const KvView> kv, const Tensor& out);

// out[h, i] = UniformOfToken(layer, first_kv_head + h, position of the token in slot i) (kernels/core/token_hash.h), of
// the candidates; layers[l]: the number in the model of the l-th layer here.
void RandomScores(Context& context, absl::Span<const KvView> kv, int window, absl::Span<const int32_t> layers,
                  int32_t first_kv_head, const Tensor& out);

enum class Pooling {
  kMax,      // the borders count as -infinity
  kAverage,  // the borders count as zero and in the divisor
};

// out[h, i] of x[h, i - kernel_size / 2 .. i + kernel_size / 2]; kernel_size is odd. x and out must not overlap.
// columns[l]: of the l-th layer's rows.
void PoolSlots(Context& context, const Tensor& x, absl::Span<const int32_t> columns, Pooling pooling, int kernel_size,
               const Tensor& out);

// Every row divided by its maximum, in place; rows without a positive number are left alone. columns[l]: of the l-th
// layer's rows.
void DivideByRowMax(Context& context, const Tensor& x, absl::Span<const int32_t> columns);

// out = a x + b y, all [rows, columns]; out may be x or y.
void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out);

// The running scores in the cache (KvBlockLayout::num_scores; the first plane unless one is named). `scores` [layers *
// kv_heads, m] receives those of the candidates.
// H2O: slot i's running score += factor * added[h, i], for all n slots (added [layers * kv_heads, n]).
void AddToRunningScores(Context& context, absl::Span<const KvView> kv, int window, float factor, const Tensor& added,
                        const Tensor& scores);
// G-KV (arXiv 2512.00504): slot i's running score = max(decay * itself, current[h, i]), for the m candidates.
void DecayRunningScores(Context& context, absl::Span<const KvView> kv, int window, float decay, const Tensor& current,
                        const Tensor& scores);
// A running mean over windows of queries: the score of slot i in a plane += (current[h, i] - itself) / c, for all n
// slots (current [layers * kv_heads, n]), where c counts the windows that have seen the slot, this one included: as
// many of w tokens, side by side, as end after its token, ceil((L - p) / w) at length L and position p, at most
// windows[l] of the l-th layer's sequence.
void AverageRunningScores(Context& context, absl::Span<const KvView> kv, int window, int plane,
                          absl::Span<const int32_t> windows, const Tensor& current, const Tensor& scores);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_KV_SCORES_H_
