#include "engine/runner/shadow_cache.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/check.h"
#include "kernels/core/read_element.h"

namespace cairn {
namespace {

// Row `index` of an array of rows of d numbers.
void LoadRow(const std::vector<uint8_t>& rows, int64_t index, DType type, std::vector<float>& out) {
  const size_t d = out.size();
  const uint8_t* row = rows.data() + static_cast<size_t>(index) * d * DTypeSize(type);
  for (size_t i = 0; i < d; ++i) out[i] = ReadElement(type, row, static_cast<int64_t>(i));
}

}  // namespace

ShadowCache::ShadowCache(const KvBlockLayout& layout, int num_layers, int query_heads, int max_sequences)
    : layout_(layout), num_layers_(num_layers), query_heads_(query_heads), sequences_(max_sequences) {
  CAIRN_CHECK(query_heads % layout.kv_heads == 0, query_heads, " query heads, ", layout.kv_heads, " KV heads");
}

void ShadowCache::Open(int sequence) {
  sequences_[sequence].assign(num_layers_, {.length = 0, .heads = std::vector<Head>(layout_.kv_heads)});
}

void ShadowCache::Extend(const KvCache& cache, int sequence, int layer) {
  Layer& shadow = sequences_[sequence][layer];
  const KvView kv = cache.View(sequence, layer);
  const int64_t length = cache.logical_length(sequence);
  for (int head = 0; head < layout_.kv_heads; ++head) {
    // Slots are in order of position, and nothing that came since the last compaction has left: they are the last ones.
    for (int64_t position = shadow.length; position < length; ++position) {
      const int32_t slot = kv.num_slots - static_cast<int32_t>(length - position);
      CAIRN_CHECK(slot >= 0 && *kv.position(head, slot) == position, "position ", position, " is not in slot ", slot);
      const uint8_t *key = kv.k(head, slot), *value = kv.v(head, slot);
      Head& to = shadow.heads[head];
      to.keys.insert(to.keys.end(), key, key + row_bytes());
      to.values.insert(to.values.end(), value, value + row_bytes());
    }
  }
  shadow.length = length;
}

ShadowLoss ShadowCache::Measure(const KvCache& cache, int sequence, int layer, int kv_head,
                                const std::vector<int32_t>& positions) const {
  const Layer& shadow = sequences_[sequence][layer];
  const Head& head = shadow.heads[kv_head];
  const int64_t length = shadow.length;
  const int window = cache.ring_layout().window, d = layout_.head_dim, group = query_heads_ / layout_.kv_heads;
  CAIRN_CHECK(window > 0 && length >= window, "no queries of ", length, " tokens");
  std::vector<bool> kept(static_cast<size_t>(length), false);
  for (const int32_t position : positions) kept[static_cast<size_t>(position)] = true;

  const float scale = 1 / std::sqrt(static_cast<float>(d));
  const int queries = window * group;
  std::vector<std::vector<float>> weights(queries, std::vector<float>(static_cast<size_t>(length)));
  std::vector<float> row(d);
  const auto query_at = [&](int query) {
    const int64_t position = length - window + query / group;
    return cache.QueryRing(sequence, layer) +
           ((position % window) * query_heads_ + kv_head * group + query % group) * static_cast<int64_t>(d);
  };
  // Tokens that the query may attend to: up to its own.
  const auto visible = [&](int query) { return length - window + query / group + 1; };
  for (int64_t position = 0; position < length; ++position) {
    LoadRow(head.keys, position, layout_.dtype, row);
    for (int query = 0; query < queries; ++query) {
      const float* q = query_at(query);
      float dot = 0;
      for (int i = 0; i < d; ++i) dot += q[i] * row[i];
      weights[query][static_cast<size_t>(position)] = dot * scale;
    }
  }
  std::vector<double> kept_mass(queries, 0);
  for (int query = 0; query < queries; ++query) {
    std::vector<float>& logits = weights[query];
    const float top = *std::max_element(logits.begin(), logits.begin() + visible(query));
    double sum = 0;
    for (int64_t position = 0; position < length; ++position) {
      float& weight = logits[static_cast<size_t>(position)];
      weight = position < visible(query) ? std::exp(weight - top) : 0;
      sum += weight;
    }
    for (int64_t position = 0; position < length; ++position) {
      float& weight = logits[static_cast<size_t>(position)];
      weight = static_cast<float>(weight / sum);
      if (kept[static_cast<size_t>(position)]) kept_mass[query] += weight;
    }
  }
  std::vector<double> full(static_cast<size_t>(queries) * d, 0), of_kept(full.size(), 0);
  for (int64_t position = 0; position < length; ++position) {
    LoadRow(head.values, position, layout_.dtype, row);
    for (int query = 0; query < queries; ++query) {
      const double weight = weights[query][static_cast<size_t>(position)];
      double* to = full.data() + static_cast<size_t>(query) * d;
      for (int i = 0; i < d; ++i) to[i] += weight * row[i];
      if (!kept[static_cast<size_t>(position)]) continue;
      to = of_kept.data() + static_cast<size_t>(query) * d;
      for (int i = 0; i < d; ++i) to[i] += weight * row[i];
    }
  }
  double mass_lost = 0, output_error = 0;
  for (int query = 0; query < queries; ++query) {
    mass_lost += std::max(0.0, 1 - kept_mass[query]);
    double difference = 0, norm = 0;
    for (int i = 0; i < d; ++i) {
      const double o = full[static_cast<size_t>(query) * d + i];
      const double delta = o - of_kept[static_cast<size_t>(query) * d + i] / kept_mass[query];
      difference += delta * delta;
      norm += o * o;
    }
    output_error += norm > 0 ? std::sqrt(difference / norm) : 0;
  }
  return {static_cast<float>(mass_lost / queries), static_cast<float>(output_error / queries)};
}

}  // namespace cairn
