// From scores to a smaller cache: which slots stay, their fingerprint, and the move.
#ifndef CAIRN_KERNELS_OPS_KV_SELECT_H_
#define CAIRN_KERNELS_OPS_KV_SELECT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// How many slots of a layer are kept: K of m candidates and of the `recent` slots behind them, which all stay.
struct Selection {
  int32_t candidates = 0, recent = 0, keep = 0;
};

// kept [rows, K] int32, ascending, of each row of scores [rows, m] (f32 or int64): slots 0 .. num_first - 1, the
// K - num_first - recent best of the other candidates, and slots m .. m + recent - 1. Ties go to the lower slot, a NaN
// counts as -infinity, -0 equals 0. recent <= K <= m + recent; num_first is cut to K - recent. Of several layers at
// once, each with as many rows, one after the other; a layer's own m and K are its columns in `scores` and `kept`.
void SelectTopK(Context& context, const Tensor& scores, absl::Span<const Selection> layers, int num_first,
                const Tensor& kept);

// fixed [rows, n] int64 += the sum over k rows of round-half-even(score * 2^40), saturated at +-2^47, NaN being -2^47,
// of scores [rows * k, n]: sums of up to 2^15 of them are exact in any order (COMPRESSION section 8). `accumulate`
// false: overwrites.
void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed);

// FNV-1a 64 of each row of kept [rows, K], each slot as a little-endian int32. fingerprints: [rows] int64 (the bits).
void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints);

// Slot j of every plane of head h becomes slot kept[h][j], j < K (kept [kv_heads, K] or, one set for all heads, [1, K];
// ascending). Slots from K on are left as they are. In place. Of several layers at once, all of one cache: rows of
// `kept` one layer after the other, keep[l] of the l-th; or [1, K], one set for all layers.
void KvCompact(Context& context, absl::Span<const KvView> kv, const Tensor& kept, absl::Span<const int32_t> keep);

// The last w post-RoPE queries of each sequence: row t of q [T, heads, d] (activations; rows may be strided) at
// position p goes to ring row p % w. rings[i] points to the [w, heads, d] f32 ring of sequences[i], on the device; the
// array of pointers is host memory.
void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_KV_SELECT_H_
