// One layer of one sequence, from keys to what stays: what the golden files need of a cache and a compressor.
#ifndef CAIRN_TESTS_COMPRESSION_LAYER_H_
#define CAIRN_TESTS_COMPRESSION_LAYER_H_

#include <algorithm>
#include <memory>
#include <vector>

#include "compression/scorer.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/kv_select.h"
#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {

class Layer {
 public:
  Layer(int kv_heads, int head_dim, int32_t capacity, DType dtype, bool has_score = false, int block_size = 16)
      : random_(7), cache_(random_, {kv_heads, head_dim, block_size, dtype, has_score}, {capacity}) {}

  // Appends tokens [begin, end) of keys [tokens, kv_heads, d] at these positions.
  void Append(Context& context, const std::vector<float>& keys, int32_t begin, int32_t end) {
    const KvBlockLayout& layout = View().layout;
    const int64_t count = end - begin, row = static_cast<int64_t>(layout.kv_heads) * layout.head_dim;
    std::vector<float> k(keys.begin() + begin * row, keys.begin() + end * row), v(k.size());
    std::vector<int32_t> positions(count);
    for (int32_t i = 0; i < count; ++i) {
      positions[i] = begin + i;
      std::fill_n(v.begin() + i * row, row, static_cast<float>(begin + i));
    }
    num_slots_ += static_cast<int32_t>(count);
    KvAppend(context, Tensor(k.data(), DType::kFloat32, {count, layout.kv_heads, layout.head_dim}),
             Tensor(v.data(), DType::kFloat32, {count, layout.kv_heads, layout.head_dim}),
             Tensor(positions.data(), DType::kInt32, {count}), {{0, static_cast<int32_t>(count), View()}});
  }

  KvView View() const { return cache_.View(0, num_slots_); }

  // [kv_heads, n - w]; queries [w, query_heads, d].
  std::vector<float> Scores(Context& context, const Scorer& scorer, std::vector<float> queries, int window) const {
    const KvView view = View();
    const int64_t m = num_slots_ - window, H = view.layout.kv_heads, d = view.layout.head_dim;
    std::vector<float> scores(H * m);
    ScorerInputs inputs = {view, {}};
    if (scorer.needs_queries()) {
      const int64_t heads = static_cast<int64_t>(queries.size()) / window / d;
      inputs.queries = Tensor(queries.data(), DType::kFloat32, {window, heads, d});
    }
    scorer.Score(context, inputs, Tensor(scores.data(), DType::kFloat32, {H, m}));
    return scores;
  }

  void Compact(Context& context, std::vector<std::vector<int32_t>> kept) {
    std::vector<int32_t> flat;
    for (const std::vector<int32_t>& set : kept) flat.insert(flat.end(), set.begin(), set.end());
    const int64_t sets = static_cast<int64_t>(kept.size()), keep = static_cast<int64_t>(kept[0].size());
    KvCompact(context, View(), Tensor(flat.data(), DType::kInt32, {sets, keep}));
    num_slots_ = static_cast<int32_t>(keep);
  }

 private:
  Random random_;
  Cache cache_;
  int32_t num_slots_ = 0;
};

// Rows of scores (float or int64) to sets of slots.
template <typename T>
std::vector<std::vector<int32_t>> Select(Context& context, std::vector<T> scores, int64_t rows, int window,
                                         int64_t keep, int num_first = 0) {
  const int64_t m = static_cast<int64_t>(scores.size()) / rows;
  keep = std::min(keep, m + window);
  std::vector<int32_t> kept(rows * keep);
  SelectTopK(context, Tensor(scores.data(), DTypeOf<T>::value, {rows, m}), num_first, window,
             Tensor(kept.data(), DType::kInt32, {rows, keep}));
  std::vector<std::vector<int32_t>> sets;
  for (int64_t row = 0; row < rows; ++row)
    sets.emplace_back(kept.begin() + row * keep, kept.begin() + (row + 1) * keep);
  return sets;
}

// Fixed-point sums over the rows of scores.
inline std::vector<int64_t> SumOfRows(Context& context, std::vector<float> scores, int64_t rows) {
  const int64_t m = static_cast<int64_t>(scores.size()) / rows;
  std::vector<int64_t> sums(m);
  for (int64_t row = 0; row < rows; ++row) {
    ScoresToFixedPoint(context, Tensor(scores.data() + row * m, DType::kFloat32, {1, m}), row > 0,
                       Tensor(sums.data(), DType::kInt64, {1, m}));
  }
  return sums;
}

inline std::vector<uint64_t> FingerprintsOf(Context& context, std::vector<std::vector<int32_t>> sets) {
  std::vector<uint64_t> fingerprints;
  for (std::vector<int32_t>& set : sets) {
    int64_t fingerprint = 0;
    FingerprintRows(context, Tensor(set.data(), DType::kInt32, {1, static_cast<int64_t>(set.size())}),
                    Tensor(&fingerprint, DType::kInt64, {1}));
    fingerprints.push_back(static_cast<uint64_t>(fingerprint));
  }
  return fingerprints;
}

}  // namespace cairn

#endif  // CAIRN_TESTS_COMPRESSION_LAYER_H_
