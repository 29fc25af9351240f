// What the attention kernels share: their parameters, and the partial results that a merge joins.
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_H_
#define CAIRN_KERNELS_CUDA_ATTENTION_H_

#include <cstdint>

#include "kernels/cuda/paged.h"
#include "kernels/cuda/storage.h"

namespace cairn::cuda {

// Slots of a row that one block takes (split-K): fixed, so that neither the batch nor the rest of the cache decides in
// what order a row's sum runs.
inline constexpr int32_t kSpanSlots = 256;

template <typename T>
struct AttentionParams {
  RowView<const T> q;  // [rows, heads * head_dim]
  RowView<T> out;
  const int32_t* positions;
  PagedStep step;
  const WorkItem* items;
  int32_t heads, group;  // query heads; those of one KV head
  int32_t window;        // 0: none
  float scale;           // 1 / sqrt(head_dim)
  // Partial results of (item, head, span): [items, heads, spans], weighted [..., head_dim].
  float *max, *sum, *weighted;
  int32_t spans;
};

// Softmax state of a row over slots: largest score (-inf where none is visible), sum of exp(score - max), and the sum
// of exp(score - max) V in `weighted`.

// One warp a query head, one lane a slot, plain arithmetic: any head size, any types. Grid: items of one row, KV heads,
// spans.
template <typename T>
void LaunchAttendRows(const AttentionParams<T>& params, unsigned items, cudaStream_t stream);

// The same on tensor cores, for 16-bit types (over a cache of that type or of E4M3) and the head sizes of HasTiles.
// Decode takes items of one row each, and at most 16 query heads a KV head. Prefill takes items of 64 / group rows and
// writes the outputs itself. An invisible slot has no weight there, but a value of infinity in it spoils the rows that
// share its tile.
template <typename T>
void LaunchDecode(const AttentionParams<T>& params, unsigned items, cudaStream_t stream);
template <typename T>
void LaunchPrefill(const AttentionParams<T>& params, unsigned items, cudaStream_t stream);
inline bool HasTiles(int32_t head_dim) { return head_dim == 64 || head_dim == 128; }
inline constexpr int32_t kPrefillVectors = 64, kDecodeVectors = 16;

// Joins the spans in order and writes the rows' outputs.
template <typename T>
void LaunchMergeSpans(const AttentionParams<T>& params, unsigned items, cudaStream_t stream);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_H_
