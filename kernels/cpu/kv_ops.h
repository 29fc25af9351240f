// The ops of kernels/ops/kv_scores.h and kv_select.h on CPU, with shapes already checked there.
#ifndef CAIRN_KERNELS_CPU_KV_OPS_H_
#define CAIRN_KERNELS_CPU_KV_OPS_H_

#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"

namespace cairn::cpu {

void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out);
void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce, const Tensor& out);
void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out);
void KeyDifference(Context& context, const KvView& kv, const Tensor& out);
void SlotRecency(Context& context, int32_t num_slots, const Tensor& out);
void RandomScores(Context& context, const KvView& kv, int32_t layer, int32_t first_kv_head, const Tensor& out);
void PoolSlots(Context& context, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out);
void DivideByRowMax(Context& context, const Tensor& x);
void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out);
void AddToRunningScores(Context& context, const KvView& kv, float factor, const Tensor& added, const Tensor& scores);
void DecayRunningScores(Context& context, const KvView& kv, float decay, const Tensor& current, const Tensor& scores);
void AverageRunningScores(Context& context, const KvView& kv, int window, int plane, int32_t windows,
                          const Tensor& current, const Tensor& scores);

void SelectTopK(Context& context, const Tensor& scores, int num_first, int recent, const Tensor& kept);
void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed);
void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints);
void KvCompact(Context& context, const KvView& kv, const Tensor& kept);
void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window);

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_KV_OPS_H_
