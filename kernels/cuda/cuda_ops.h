// The ops on a GPU: the same functions as kernels/ops declares, with shapes already checked there. They give work to
// the context's stream and return.
#ifndef CAIRN_KERNELS_CUDA_CUDA_OPS_H_
#define CAIRN_KERNELS_CUDA_CUDA_OPS_H_

#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/kv_select.h"
#include "kernels/ops/matmul.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/sample.h"

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
void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale);
void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y);
void AddInPlace(Context& context, const Tensor& x, const Tensor& y);
void RoundToActivation(Context& context, const Tensor& x);

void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences);
void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out);

void SelectTopK(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept);
void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed);
void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints);
void KvCompact(Context& context, const KvView& kv, const Tensor& kept);
void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_CUDA_OPS_H_
