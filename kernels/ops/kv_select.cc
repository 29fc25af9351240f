#include "kernels/ops/kv_select.h"

#include <algorithm>

#include "kernels/cpu/kv_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {

void SelectTopK(Context& context, const Tensor& scores, absl::Span<const Selection> layers, int num_first,
                const Tensor& kept) {
  CAIRN_CHECK(scores.dtype() == DType::kFloat32 || scores.dtype() == DType::kInt64, "SelectTopK: scores hold ",
              DTypeName(scores.dtype()), ", expected float32 or int64");
  CheckOperand("SelectTopK", "scores", context, scores, scores.dtype(), 2);
  CheckOperand("SelectTopK", "kept", context, kept, DType::kInt32, 2);
  CheckDim("SelectTopK", "kept", kept, 0, scores.dim(0));
  CAIRN_CHECK(!layers.empty() && scores.dim(0) % static_cast<int64_t>(layers.size()) == 0,
              "SelectTopK: ", scores.dim(0), " rows of ", layers.size(), " layers");
  for (const Selection& layer : layers) {
    CAIRN_CHECK(layer.candidates >= 0 && layer.candidates <= scores.dim(1) && layer.keep <= kept.dim(1),
                "SelectTopK: ", layer.keep, " of ", layer.candidates, " in ", kept.dim(1), " of ", scores.dim(1));
    CAIRN_CHECK(num_first >= 0 && layer.recent >= 0 && layer.recent <= layer.keep &&
                    layer.keep <= layer.candidates + layer.recent,
                "SelectTopK: ", layer.keep, " of ", layer.candidates, " candidates and ", layer.recent,
                " recent slots");
  }
  if (kept.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, SelectTopK, scores, layers, num_first, kept);
  const int64_t rows = scores.dim(0) / static_cast<int64_t>(layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    const int64_t begin = static_cast<int64_t>(l) * rows;
    cpu::SelectTopK(context, scores.Rows(begin, begin + rows).Columns(0, layers[l].candidates), num_first,
                    layers[l].recent, kept.Rows(begin, begin + rows).Columns(0, layers[l].keep));
  }
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  CheckOperand("ScoresToFixedPoint", "scores", context, scores, DType::kFloat32, 2);
  CheckOperand("ScoresToFixedPoint", "fixed", context, fixed, DType::kInt64, 2);
  CheckDim("ScoresToFixedPoint", "fixed", fixed, 1, scores.dim(1));
  CAIRN_CHECK(fixed.dim(0) > 0 && scores.dim(0) % fixed.dim(0) == 0, "ScoresToFixedPoint: ", scores.dim(0),
              " rows into ", fixed.dim(0));
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

void KvCompact(Context& context, absl::Span<const KvView> kv, const Tensor& kept, absl::Span<const int32_t> keep) {
  CheckOperand("KvCompact", "kept", context, kept, DType::kInt32, 2);
  CAIRN_CHECK(!kv.empty() && keep.size() == kv.size(), "KvCompact: ", keep.size(), " sizes of ", kv.size(), " layers");
  const int64_t layers = static_cast<int64_t>(kv.size());
  const int64_t sets = kept.dim(0) == 1 ? 0 : kept.dim(0) / layers;  // of a layer's own
  for (size_t l = 0; l < kv.size(); ++l) {
    CAIRN_CHECK(sets == 0 || (kept.dim(0) == sets * layers && (sets == 1 || sets == kv[l].layout.kv_heads)),
                "KvCompact: ", kept.dim(0), " sets for ", layers, " layers of ", kv[l].layout.kv_heads, " KV heads");
    CAIRN_CHECK(keep[l] >= 0 && keep[l] <= kept.dim(1) && keep[l] <= kv[l].num_slots, "KvCompact: ", keep[l], " of ",
                kv[l].num_slots, " slots");
  }
  if (kept.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, KvCompact, kv, kept, keep);
  for (int64_t l = 0; l < layers; ++l) {
    cpu::KvCompact(context, kv[l], kept.Rows(l * sets, l * sets + std::max<int64_t>(1, sets)).Columns(0, keep[l]));
  }
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
