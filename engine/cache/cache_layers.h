// A rank's layers as its cache has them. A layer's KV heads have as many slots each, unless their budgets differ
// (CompressionConfig::by_head): then each KV head is a layer of the cache for itself, with one head.
#ifndef CAIRN_ENGINE_CACHE_CACHE_LAYERS_H_
#define CAIRN_ENGINE_CACHE_CACHE_LAYERS_H_

#include <cstdint>

#include "compression/compression_config.h"
#include "parallel/shard/shard.h"

namespace cairn {

class CacheLayers {
 public:
  CacheLayers() = default;
  // Layers whose heads have as many slots each.
  CacheLayers(Range layers) : layers_(layers), heads_{.query_heads = {0, 1}, .kv_heads = {0, 1}} {}  // NOLINT
  // `layers` of the model, of which each has num_kv_heads, and this rank `heads`.
  CacheLayers(const CompressionConfig& config, Range layers, const HeadShard& heads, int64_t num_kv_heads)
      : layers_(layers), heads_(heads), by_head_(config.by_head()), num_kv_heads_(by_head_ ? num_kv_heads : 1) {}

  int64_t size() const { return layers_.size() * per_layer(); }
  // Of one layer of the model.
  int64_t per_layer() const { return by_head_ ? heads_.kv_heads.size() : 1; }
  int64_t kv_heads() const { return heads_.kv_heads.size() / per_layer(); }
  int64_t query_heads() const { return heads_.query_heads.size() / per_layer(); }

  // Of the index-th layer of the cache: the layer of the model, its first KV head there, and where its budget stands
  // among all budgets (NumBudgets).
  int64_t layer(int64_t index) const { return layers_.begin + index / per_layer(); }
  int64_t first_head(int64_t index) const { return heads_.kv_heads.begin + index % per_layer(); }
  int64_t budget(int64_t index) const {
    return by_head_ ? layer(index) * num_kv_heads_ + first_head(index) : layer(index);
  }

  // The heads of one of them, as its compression sees them.
  HeadShard shard() const {
    HeadShard shard = heads_;
    if (!by_head_) return shard;
    shard.query_heads = {0, query_heads()};
    shard.kv_heads = {0, 1};
    return shard;
  }
  bool by_head() const { return by_head_; }

 private:
  Range layers_;
  HeadShard heads_;
  bool by_head_ = false;
  int64_t num_kv_heads_ = 1;  // of a layer of the model, where each has a budget
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_CACHE_LAYERS_H_
