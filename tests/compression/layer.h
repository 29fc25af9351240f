// One layer of one sequence, from keys to what stays: what the golden files need of a cache and a compressor, on a
// context's device, with numbers that come from the host and go back there.
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
  Layer(Context& context, int kv_heads, int head_dim, int32_t capacity, DType dtype, int num_scores = 0,
        int block_size = 16)
      : random_(7), cache_(random_, {kv_heads, head_dim, block_size, dtype, num_scores}, {capacity}, &context) {}

  // Appends tokens [begin, end) of keys [tokens, kv_heads, d] at these positions. Activations are float32.
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
    Operands on(context);
    KvAppend(context, on.F32(k).Reshape({count, layout.kv_heads, layout.head_dim}),
             on.F32(v).Reshape({count, layout.kv_heads, layout.head_dim}), on.Ints(positions),
             {{0, static_cast<int32_t>(count), View()}});
    context.Synchronize();
  }

  KvView View() const { return cache_.View(0, num_slots_); }
  // To look into; valid until the next call.
  KvView HostView() { return cache_.HostView(0, num_slots_); }

  // [kv_heads, n - w]; queries [w, query_heads, d].
  std::vector<float> Scores(Context& context, const Scorer& scorer, std::vector<float> queries, int window) const {
    const KvView view = View();
    const int64_t m = num_slots_ - window, H = view.layout.kv_heads, d = view.layout.head_dim;
    std::vector<float> scores(H * m);
    Operands on(context);
    ScorerInputs inputs = {
        .kv = absl::MakeConstSpan(&view, 1), .queries = {}, .layers = kFirstLayer, .windows = kManyWindows};
    if (scorer.needs_queries()) {
      const int64_t heads = static_cast<int64_t>(queries.size()) / window / d;
      inputs.queries = on.F32(queries).Reshape({window, heads, d});
    }
    scorer.Score(context, inputs, on.F32(scores).Reshape({H, m}));
    on.Fetch();
    return scores;
  }

  static constexpr int32_t kFirstLayer[] = {0}, kManyWindows[] = {1 << 20};

  void Compact(Context& context, std::vector<std::vector<int32_t>> kept) {
    std::vector<int32_t> flat;
    for (const std::vector<int32_t>& set : kept) flat.insert(flat.end(), set.begin(), set.end());
    const int64_t sets = static_cast<int64_t>(kept.size()), keep = static_cast<int64_t>(kept[0].size());
    Operands on(context);
    KvCompact(context, {View()}, on.Ints(flat).Reshape({sets, keep}), {static_cast<int32_t>(keep)});
    context.Synchronize();
    num_slots_ = static_cast<int32_t>(keep);
  }

 private:
  Random random_;
  Cache cache_;
  int32_t num_slots_ = 0;
};

inline Tensor Place(Operands& on, std::vector<float>& values) { return on.F32(values); }
inline Tensor Place(Operands& on, std::vector<int64_t>& values) { return on.Ints(values); }

// Rows of scores (float or int64) to sets of slots.
template <typename T>
std::vector<std::vector<int32_t>> Select(Context& context, std::vector<T> scores, int64_t rows, int window,
                                         int64_t keep, int num_first = 0) {
  const int64_t m = static_cast<int64_t>(scores.size()) / rows;
  keep = std::min(keep, m + window);
  std::vector<int32_t> kept(rows * keep);
  Operands on(context);
  SelectTopK(context, Place(on, scores).Reshape({rows, m}),
             {{static_cast<int32_t>(m), window, static_cast<int32_t>(keep)}}, num_first,
             on.Ints(kept).Reshape({rows, keep}));
  on.Fetch();
  std::vector<std::vector<int32_t>> sets;
  for (int64_t row = 0; row < rows; ++row)
    sets.emplace_back(kept.begin() + row * keep, kept.begin() + (row + 1) * keep);
  return sets;
}

// Fixed-point sums over the rows of scores.
inline std::vector<int64_t> SumOfRows(Context& context, std::vector<float> scores, int64_t rows) {
  const int64_t m = static_cast<int64_t>(scores.size()) / rows;
  std::vector<int64_t> sums(m);
  Operands on(context);
  ScoresToFixedPoint(context, on.F32(scores).Reshape({rows, m}), /*accumulate=*/false, on.Ints(sums).Reshape({1, m}));
  on.Fetch();
  return sums;
}

inline std::vector<uint64_t> FingerprintsOf(Context& context, std::vector<std::vector<int32_t>> sets) {
  std::vector<uint64_t> fingerprints;
  for (std::vector<int32_t>& set : sets) {
    std::vector<int64_t> fingerprint(1);
    Operands on(context);
    FingerprintRows(context, on.Ints(set).Reshape({1, static_cast<int64_t>(set.size())}), on.Ints(fingerprint));
    on.Fetch();
    fingerprints.push_back(static_cast<uint64_t>(fingerprint[0]));
  }
  return fingerprints;
}

}  // namespace cairn

#endif  // CAIRN_TESTS_COMPRESSION_LAYER_H_
