// The ops on a GPU: the same functions as kernels/ops declares, with shapes already checked there. They give work to
// the context's stream and return.
#ifndef CAIRN_KERNELS_CUDA_CUDA_OPS_H_
#define CAIRN_KERNELS_CUDA_CUDA_OPS_H_

#include <cstdint>

#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"
#include "kernels/ops/matmul.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/rope_append.h"
#include "kernels/ops/sample.h"
#include "kernels/ops/window_queries.h"

namespace cairn::cuda {

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options);
void ReserveMatMul(Context& context, const PackedMatrix& w, int64_t max_rows);
void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y);
void QuantizeRows(Context& context, const Tensor& x, const Tensor& codes, const Tensor& scales);

void BestTokens(Context& context, const Tensor& logits, int64_t vocab_begin, const Tensor& best);
void SampleTotals(Context& context, const Tensor& logits, const Tensor& best, const Tensor& inverse_temperature,
                  const Tensor& totals);
void SampleTokens(Context& context, const Tensor& logits, int64_t vocab_begin, int rank, const Tensor& best,
                  const Tensor& inverse_temperature, const Tensor& fractions, const Tensor& totals,
                  const Tensor& tokens);

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y);
void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed);
void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale);
void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y);
void AddInPlace(Context& context, const Tensor& x, const Tensor& y);
void RoundToActivation(Context& context, const Tensor& x, const Tensor& y);
void TakeRows(Context& context, const Tensor& x, absl::Span<const int32_t> rows, const Tensor& y);
void ScatterInts(Context& context, absl::Span<const int32_t> indices, absl::Span<const int32_t> values,
                 const Tensor& to);

void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences);
void RopeAppend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                const Tensor& inv_freq, absl::Span<const SequenceRows> sequences, const QueryRings& rings,
                float attention_scale);
void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out);
void ReserveAttention(Context& context, int64_t rows, int64_t heads, int64_t head_dim, int64_t max_slots);

void WindowQueries(Context& context, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out);
void ReserveScoreMemory(Context& context, const KvBlockLayout& layout, int32_t slots, int64_t vectors);
void WindowImportance(Context& context, absl::Span<const KvView> kv, const Tensor& queries, int left_out,
                      const Tensor& out);
void WindowAttention(Context& context, absl::Span<const KvView> kv, const Tensor& queries, WindowReduce reduce,
                     int left_out, const Tensor& out);
void KeyRedundancy(Context& context, absl::Span<const KvView> kv, int window, float threshold,
                   RedundancyVariant variant, bool remembers, const Tensor& out);
void KeyDifference(Context& context, absl::Span<const KvView> kv, int window, const Tensor& out);
void SlotRecency(Context& context, absl::Span<const KvView> kv, const Tensor& out);
void RandomScores(Context& context, absl::Span<const KvView> kv, int window, absl::Span<const int32_t> layers,
                  int32_t first_kv_head, const Tensor& out);
void PoolSlots(Context& context, const Tensor& x, absl::Span<const int32_t> columns, Pooling pooling, int kernel_size,
               const Tensor& out);
void DivideByRowMax(Context& context, const Tensor& x, absl::Span<const int32_t> columns);
void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out);
void AddToRunningScores(Context& context, absl::Span<const KvView> kv, int window, float factor, const Tensor& added,
                        const Tensor& scores);
void DecayRunningScores(Context& context, absl::Span<const KvView> kv, int window, float decay, const Tensor& current,
                        const Tensor& scores);
void AverageRunningScores(Context& context, absl::Span<const KvView> kv, int window, int plane,
                          absl::Span<const int32_t> windows, const Tensor& current, const Tensor& scores);

void SelectTopK(Context& context, const Tensor& scores, absl::Span<const Selection> layers, int num_first,
                const Tensor& kept);
void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed);
void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints);
void KvCompact(Context& context, absl::Span<const KvView> kv, const Tensor& kept, absl::Span<const int32_t> keep);
void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_CUDA_OPS_H_
