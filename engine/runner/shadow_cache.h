// The full cache beside the compressed one, to measure what an eviction costs: every key and value that a layer was
// ever given, in host memory, and what the attention of the window's queries loses when only the kept ones are left.
//
// Keys and values are those of the compressed run itself. So the loss is that of leaving entries out, not of the hidden
// states having become others before.
#ifndef CAIRN_ENGINE_RUNNER_SHADOW_CACHE_H_
#define CAIRN_ENGINE_RUNNER_SHADOW_CACHE_H_

#include <cstdint>
#include <vector>

#include "engine/cache/kv_cache.h"
#include "kernels/core/kv_view.h"

namespace cairn {

// Of one KV head at one compaction: means over the window's queries and the query heads that share it (on this rank).
// With P the softmax of q.k / sqrt(d) over all tokens up to the query's own, o = sum P v, and o' the same over the kept
// tokens alone, normalised again:
struct ShadowLoss {
  float mass_lost = 0;     // sum of P over the tokens that are not kept
  float output_error = 0;  // |o - o'| / |o|
};

class ShadowCache {
 public:
  // `query_heads`: of this rank, a multiple of the layout's KV heads. On the CPU alone: reads the cache where it is.
  ShadowCache(const KvBlockLayout& layout, int num_layers, int query_heads, int max_sequences);

  // Forgets what a handle's last sequence had.
  void Open(int sequence);
  // Takes over what was appended to the layer since the last call. Before every compaction of it.
  void Extend(const KvCache& cache, int sequence, int layer);
  // What the head's window loses if it keeps the tokens at `positions` (ascending, the window among them). After
  // Extend; the cache has query rings.
  ShadowLoss Measure(const KvCache& cache, int sequence, int layer, int kv_head,
                     const std::vector<int32_t>& positions) const;

 private:
  // Of one KV head: a row for every position from 0 on, in the cache's type.
  struct Head {
    std::vector<uint8_t> keys, values;
  };
  struct Layer {
    int64_t length = 0;  // positions held
    std::vector<Head> heads;
  };
  size_t row_bytes() const { return static_cast<size_t>(layout_.head_dim) * DTypeSize(layout_.dtype); }

  KvBlockLayout layout_;
  int num_layers_, query_heads_;
  std::vector<std::vector<Layer>> sequences_;  // by handle and layer
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_SHADOW_CACHE_H_
