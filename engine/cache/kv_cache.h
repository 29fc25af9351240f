// The paged KV cache of one rank: its layers, its KV heads. A block table per (sequence, layer), so that layers may
// have different lengths. Every rank applies the same plans, so lengths are the same everywhere without a message; the
// scheduler counts blocks (CacheAccountant) and never plans what does not fit.
#ifndef CAIRN_ENGINE_CACHE_KV_CACHE_H_
#define CAIRN_ENGINE_CACHE_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/block_pool.h"
#include "kernels/core/buffer.h"
#include "kernels/core/kv_view.h"

namespace cairn {

class KvCache {
 public:
  // RESOURCE_EXHAUSTED when the pool cannot be allocated. `max_sequences` sequences may be open at once: their handles
  // are 0 .. max_sequences - 1.
  static absl::StatusOr<KvCache> Create(Device device, const KvBlockLayout& layout, int num_layers, int64_t num_blocks,
                                        int max_sequences);

  void Open(int sequence);
  // Room for `num_tokens` more slots in every layer; they follow what is there.
  void Append(int sequence, int num_tokens);
  // Returns every block of the sequence to the pool.
  void Close(int sequence);
  bool is_open(int sequence) const { return sequences_[sequence].open; }

  // `layer` counts from this rank's first. The view's block table is valid until the sequence's next Append or Close.
  KvView View(int sequence, int layer) const;
  int32_t physical_length(int sequence, int layer) const { return sequences_[sequence].layers[layer].num_slots; }

  const KvBlockLayout& layout() const { return layout_; }
  int num_layers() const { return num_layers_; }
  const BlockPool& pool() const { return pool_; }

 private:
  // All that a layer knows of a sequence, reset together.
  struct LayerState {
    std::vector<int32_t> blocks;
    int32_t num_slots = 0;  // physical length
  };
  struct Sequence {
    bool open = false;
    std::vector<LayerState> layers;
  };

  KvCache(Buffer memory, const KvBlockLayout& layout, int num_layers, int64_t num_blocks, int max_sequences);

  Buffer memory_;
  KvBlockLayout layout_;
  int num_layers_;
  BlockPool pool_;
  std::vector<Sequence> sequences_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_KV_CACHE_H_
