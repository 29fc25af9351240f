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

// Joins the spans in order and writes the rows' outputs.
template <typename T>
void LaunchMergeSpans(const AttentionParams<T>& params, unsigned items, cudaStream_t stream);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_H_
