#include "kernels/ops/kv_select.h"

#include "kernels/cpu/kv_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void SelectTopK(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept) {
  CAIRN_CHECK(scores.dtype() == DType::kFloat32 || scores.dtype() == DType::kInt64, "SelectTopK: scores hold ",
              DTypeName(scores.dtype()), ", expected float32 or int64");
  CheckOperand("SelectTopK", "scores", context, scores, scores.dtype(), 2);
  CheckOperand("SelectTopK", "kept", context, kept, DType::kInt32, 2);
  CheckDim("SelectTopK", "kept", kept, 0, scores.dim(0));
  CAIRN_CHECK(window >= 0 && num_first >= 0 && window <= kept.dim(1) && kept.dim(1) <= scores.dim(1) + window,
              "SelectTopK: ", kept.dim(1), " of ", scores.dim(1), " candidates and a window of ", window);
  if (kept.num_elements() == 0) return;
  CAIRN_DISPATCH(context, SelectTopK, scores, num_first, window, kept);
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  CheckOperand("ScoresToFixedPoint", "scores", context, scores, DType::kFloat32, 2);
  CheckOperand("ScoresToFixedPoint", "fixed", context, fixed, DType::kInt64, 2);
  for (int i = 0; i < 2; ++i) CheckDim("ScoresToFixedPoint", "fixed", fixed, i, scores.dim(i));
  if (scores.num_elements() == 0) return;
  CAIRN_DISPATCH(context, ScoresToFixedPoint, scores, accumulate, fixed);
}

void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints) {
  CheckOperand("FingerprintRows", "kept", context, kept, DType::kInt32, 2);
  CheckOperand("FingerprintRows", "fingerprints", context, fingerprints, DType::kInt64, 1);
  CheckDim("FingerprintRows", "fingerprints", fingerprints, 0, kept.dim(0));
  if (kept.dim(0) == 0) return;
  CAIRN_DISPATCH(context, FingerprintRows, kept, fingerprints);
}

void KvCompact(Context& context, const KvView& kv, const Tensor& kept) {
  CheckOperand("KvCompact", "kept", context, kept, DType::kInt32, 2);
  CAIRN_CHECK(kept.dim(0) == 1 || kept.dim(0) == kv.layout.kv_heads, "KvCompact: ", kept.dim(0), " sets for ",
              kv.layout.kv_heads, " KV heads");
  CAIRN_CHECK(kept.dim(1) <= kv.num_slots, "KvCompact: ", kept.dim(1), " of ", kv.num_slots, " slots");
  if (kept.num_elements() == 0) return;
  CAIRN_DISPATCH(context, KvCompact, kv, kept);
}

void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window) {
  CheckActivation("RecordQueries", "q", context, q, 3);
  CheckOperand("RecordQueries", "positions", context, positions, DType::kInt32, 1);
  CheckDim("RecordQueries", "positions", positions, 0, q.dim(0));
  CAIRN_CHECK(window > 0 && rings.size() == sequences.size(), "RecordQueries: ", rings.size(), " rings for ",
              sequences.size(), " sequences, window ", window);
  for (const SequenceRows& rows : sequences) {
    CAIRN_CHECK(rows.row_begin >= 0 && rows.num_rows >= 0 && rows.row_begin + rows.num_rows <= q.dim(0),
                "RecordQueries: rows ", rows.row_begin, " + ", rows.num_rows, " of ", q.dim(0));
  }
  if (sequences.empty()) return;
  CAIRN_DISPATCH(context, RecordQueries, q, positions, sequences, rings, window);
}

}  // namespace cairn
