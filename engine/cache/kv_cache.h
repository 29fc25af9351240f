// The paged KV cache of one rank: its layers, its KV heads. A block table per (sequence, layer), so that layers may
// have different lengths; where KV heads of a layer may, each of them is one of the cache's layers (CacheLayers). Every
// rank applies the same plans, so lengths are the same everywhere without a message; the scheduler counts blocks
// (CacheAccountant) and never plans what does not fit.
#ifndef CAIRN_ENGINE_CACHE_KV_CACHE_H_
#define CAIRN_ENGINE_CACHE_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/cache/block_pool.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// The last queries of each sequence and layer, for the methods that score by them: rings of `window` rows, the query at
// position p in row p % window. None where window is 0.
struct QueryRingLayout {
  int window = 0;
  int heads = 0;  // query heads of this rank
  int head_dim = 0;

  int64_t floats_per_layer() const { return static_cast<int64_t>(window) * heads * head_dim; }
};

// A layer (of this rank) of a sequence.
struct LayerId {
  int32_t sequence = 0;
  int layer = 0;
};

class KvCache {
 public:
  // RESOURCE_EXHAUSTED when the pool cannot be allocated. `max_sequences` sequences may be open at once: their handles
  // are 0 .. max_sequences - 1. On a GPU the block tables are there too, for layers of at most `max_slots`.
  static absl::StatusOr<KvCache> Create(Device device, const KvBlockLayout& layout, const QueryRingLayout& rings,
                                        int num_layers, int64_t num_blocks, int max_sequences, int64_t max_slots = 0);

  void Open(int sequence);
  // Room for `num_tokens` more slots in every layer; they follow what is there.
  void Append(int sequence, int num_tokens);
  // Tells a GPU of the blocks that Append has taken: once the sequences of a step are appended to, before ops read the
  // cache. Nothing on CPU.
  void SendTables(Context& context);
  // Keeps in some layers the slots of `kept` (as KvCompact has it: keep[l] of the l-th): they become slots 0 .. K - 1,
  // in every plane. The only code that moves slots. Threads may compact different layers at the same time; the blocks
  // behind the slots are the sequence's until FreeTails.
  void Compact(Context& context, absl::Span<const LayerId> layers, const Tensor& kept, absl::Span<const int32_t> keep);
  // The blocks behind the slots of every layer go back to the pool.
  void FreeTails(int sequence);
  // Returns every block of the sequence to the pool.
  void Close(int sequence);
  bool is_open(int sequence) const { return sequences_[sequence].open; }

  // `layer` counts from this rank's first. The view's block table is valid until the sequence's next Append or Close.
  KvView View(int sequence, int layer) const;
  int32_t physical_length(int sequence, int layer) const { return sequences_[sequence].layers[layer].num_slots; }
  // Tokens seen: the position of the next one. Compaction does not change it.
  int64_t logical_length(int sequence) const { return sequences_[sequence].seen; }

  const QueryRingLayout& ring_layout() const { return ring_layout_; }
  bool has_rings() const { return ring_layout_.window > 0; }
  // [window, heads, head_dim] f32 of one layer; a sequence's layers follow one another.
  float* QueryRing(int sequence, int layer) const;

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
    int64_t seen = 0;
    std::vector<LayerState> layers;
  };

  KvCache(Buffer memory, Buffer rings, Buffer tables, const KvBlockLayout& layout, const QueryRingLayout& ring_layout,
          int num_layers, int64_t num_blocks, int max_sequences, int64_t table_size);

  int64_t TableBegin(int sequence, int layer) const {
    return (static_cast<int64_t>(sequence) * num_layers_ + layer) * table_size_;
  }

  Buffer memory_, rings_;
  Buffer tables_;                                  // on a GPU: [max_sequences, num_layers, table_size_] int32
  int64_t table_size_ = 0;                         // blocks of a layer at most
  std::vector<int32_t> new_entries_, new_blocks_;  // of the tables, that the GPU has not been told of
  KvBlockLayout layout_;
  QueryRingLayout ring_layout_;
  int num_layers_;
  BlockPool pool_;
  std::vector<Sequence> sequences_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_KV_CACHE_H_
