#include "kernels/ops/sample.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {
namespace {

// A contiguous operand with a value (or more) for each row of logits.
void CheckPerRow(const char* op, const char* name, const Context& context, const Tensor& tensor, DType dtype,
                 const Tensor& logits) {
  CheckOperand(op, name, context, tensor, dtype, 1);
  CheckDim(op, name, tensor, 0, logits.dim(0));
  CAIRN_CHECK(tensor.is_contiguous(), op, ": ", name, " must be contiguous");
}

void CheckTotals(const char* op, const Context& context, const Tensor& totals, int rank, const Tensor& logits) {
  CheckOperand(op, "totals", context, totals, DType::kInt64, rank);
  CheckDim(op, "totals", totals, rank - 2, logits.dim(0));
  CAIRN_CHECK(totals.is_contiguous() && totals.dim(rank - 1) >= NumSampleChunks(logits.dim(1)), op, ": ",
              totals.dim(rank - 1), " totals a row for ", logits.dim(1), " logits");
}

}  // namespace

void BestTokens(Context& context, const Tensor& logits, int64_t vocab_begin, const Tensor& best) {
  CheckOperand("BestTokens", "logits", context, logits, DType::kFloat32, 2);
  CheckPerRow("BestTokens", "best", context, best, DType::kInt64, logits);
  if (logits.dim(0) == 0) return;
  CAIRN_DISPATCH(context, BestTokens, logits, vocab_begin, best);
}

void SampleTotals(Context& context, const Tensor& logits, const Tensor& best, const Tensor& inverse_temperature,
                  const Tensor& totals) {
  CheckOperand("SampleTotals", "logits", context, logits, DType::kFloat32, 2);
  CheckPerRow("SampleTotals", "best", context, best, DType::kInt64, logits);
  CheckPerRow("SampleTotals", "inverse_temperature", context, inverse_temperature, DType::kFloat32, logits);
  CheckTotals("SampleTotals", context, totals, 2, logits);
  if (totals.num_elements() == 0) return;
  CAIRN_DISPATCH(context, SampleTotals, logits, best, inverse_temperature, totals);
}

void SampleTokens(Context& context, const Tensor& logits, int64_t vocab_begin, int rank, const Tensor& best,
                  const Tensor& inverse_temperature, const Tensor& fractions, const Tensor& totals,
                  const Tensor& tokens) {
  CheckOperand("SampleTokens", "logits", context, logits, DType::kFloat32, 2);
  CheckPerRow("SampleTokens", "best", context, best, DType::kInt64, logits);
  CheckPerRow("SampleTokens", "inverse_temperature", context, inverse_temperature, DType::kFloat32, logits);
  CheckPerRow("SampleTokens", "fractions", context, fractions, DType::kInt64, logits);
  CheckPerRow("SampleTokens", "tokens", context, tokens, DType::kInt64, logits);
  CheckTotals("SampleTokens", context, totals, 3, logits);
  CAIRN_CHECK(rank >= 0 && rank < totals.dim(0), "SampleTokens: rank ", rank, " of ", totals.dim(0));
  if (logits.dim(0) == 0) return;
  CAIRN_DISPATCH(context, SampleTokens, logits, vocab_begin, rank, best, inverse_temperature, fractions, totals,
                 tokens);
}

}  // namespace cairn
