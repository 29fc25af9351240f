// The ops on CPU: the same functions as kernels/ops declares, with shapes already checked there.
#ifndef CAIRN_KERNELS_CPU_CPU_OPS_H_
#define CAIRN_KERNELS_CPU_CPU_OPS_H_

#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/matmul.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/rope_append.h"
#include "kernels/ops/sample.h"
#include "kernels/ops/window_queries.h"

namespace cairn::cpu {

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options);
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

void WindowQueries(Context& context, absl::Span<const WindowRing> rings, int rings_per_layer, const Tensor& out);

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_CPU_OPS_H_
