#include "engine/cache/kv_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/kv_select.h"

namespace cairn {

absl::StatusOr<KvCache> KvCache::Create(Device device, const KvBlockLayout& layout, const QueryRingLayout& rings,
                                        int num_layers, int64_t num_blocks, int max_sequences, int64_t max_slots) {
  CAIRN_ASSIGN_OR_RETURN(Buffer memory,
                         Buffer::Allocate(device, static_cast<size_t>(num_blocks) * layout.block_bytes()));
  CAIRN_ASSIGN_OR_RETURN(Buffer ring_memory, Buffer::Allocate(device, static_cast<size_t>(max_sequences) * num_layers *
                                                                          rings.floats_per_layer() * sizeof(float)));
  if (device.is_cpu()) {
    return KvCache(std::move(memory), std::move(ring_memory), Buffer(), layout, rings, num_layers, num_blocks,
                   max_sequences, 0);
  }
  // A CPU's memory is zero already, and takes no room until it is used.
  memory.Clear();
  ring_memory.Clear();
  CAIRN_CHECK(max_slots > 0, "block tables on a GPU have a size");
  const int64_t table_size = (max_slots + layout.block_size - 1) / layout.block_size;
  const int64_t entries = max_sequences * num_layers * table_size;
  if (entries > INT32_MAX) {
    return absl::ResourceExhaustedError(
        absl::StrCat("block tables of ", max_sequences, " sequences of ", max_slots, " tokens in ", num_layers,
                     " layers are too large: lower --max-num-seqs or --max-model-len, or raise --block-size"));
  }
  CAIRN_ASSIGN_OR_RETURN(Buffer tables, Buffer::Allocate(device, static_cast<size_t>(entries) * sizeof(int32_t)));
  return KvCache(std::move(memory), std::move(ring_memory), std::move(tables), layout, rings, num_layers, num_blocks,
                 max_sequences, table_size);
}

KvCache::KvCache(Buffer memory, Buffer rings, Buffer tables, const KvBlockLayout& layout,
                 const QueryRingLayout& ring_layout, int num_layers, int64_t num_blocks, int max_sequences,
                 int64_t table_size)
    : memory_(std::move(memory)),
      rings_(std::move(rings)),
      tables_(std::move(tables)),
      table_size_(table_size),
      layout_(layout),
      ring_layout_(ring_layout),
      num_layers_(num_layers),
      pool_(num_blocks) {
  sequences_.resize(max_sequences);
  for (Sequence& sequence : sequences_) sequence.layers.resize(num_layers);
}

void KvCache::Open(int sequence) {
  CAIRN_CHECK(!sequences_[sequence].open, "sequence ", sequence, " is open already");
  sequences_[sequence].open = true;
}

void KvCache::Append(int sequence, int num_tokens) {
  CAIRN_CHECK(sequences_[sequence].open, "sequence ", sequence, " is not open");
  sequences_[sequence].seen += num_tokens;
  for (int l = 0; l < num_layers_; ++l) {
    LayerState& layer = sequences_[sequence].layers[l];
    layer.num_slots += num_tokens;
    while (static_cast<int64_t>(layer.blocks.size()) * layout_.block_size < layer.num_slots) {
      const int64_t index = static_cast<int64_t>(layer.blocks.size());
      layer.blocks.push_back(pool_.Allocate());
      if (table_size_ == 0) continue;
      CAIRN_CHECK(index < table_size_, "a layer of more than ", table_size_, " blocks");
      new_entries_.push_back(static_cast<int32_t>(TableBegin(sequence, l) + index));
      new_blocks_.push_back(layer.blocks.back());
    }
  }
}

void KvCache::SendTables(Context& context) {
  if (new_entries_.empty()) return;
  const int64_t entries = static_cast<int64_t>(tables_.size_bytes() / sizeof(int32_t));
  ScatterInts(context, new_entries_, new_blocks_, Tensor(tables_.data(), DType::kInt32, {entries}, tables_.device()));
  new_entries_.clear();
  new_blocks_.clear();
}

void KvCache::Compact(Context& context, absl::Span<const LayerId> layers, const Tensor& kept,
                      absl::Span<const int32_t> keep) {
  std::vector<KvView> views;
  for (const LayerId& id : layers) {
    CAIRN_CHECK(sequences_[id.sequence].open, "sequence ", id.sequence, " is not open");
    views.push_back(View(id.sequence, id.layer));
  }
  KvCompact(context, views, kept, keep);
  for (size_t l = 0; l < layers.size(); ++l) {
    sequences_[layers[l].sequence].layers[layers[l].layer].num_slots = keep[l];
  }
}

void KvCache::FreeTails(int sequence) {
  CAIRN_CHECK(sequences_[sequence].open, "sequence ", sequence, " is not open");
  for (LayerState& state : sequences_[sequence].layers) {
    const size_t blocks = (state.num_slots + layout_.block_size - 1) / layout_.block_size;
    while (state.blocks.size() > blocks) {
      pool_.Free(state.blocks.back());
      state.blocks.pop_back();
    }
  }
}

void KvCache::Close(int sequence) {
  CAIRN_CHECK(sequences_[sequence].open, "sequence ", sequence, " is not open");
  for (LayerState& layer : sequences_[sequence].layers) {
    for (int32_t block : layer.blocks) pool_.Free(block);
    layer.blocks.clear();
    layer.num_slots = 0;
  }
  sequences_[sequence].open = false;
  sequences_[sequence].seen = 0;
}

KvView KvCache::View(int sequence, int layer) const {
  const LayerState& state = sequences_[sequence].layers[layer];
  KvView view = {
      .layout = layout_, .pool = memory_.data(), .block_table = state.blocks.data(), .num_slots = state.num_slots};
  if (table_size_ > 0) {
    view.device_tables = reinterpret_cast<const int32_t*>(tables_.data());
    view.device_table_begin = static_cast<int32_t>(TableBegin(sequence, layer));
  }
  return view;
}

float* KvCache::QueryRing(int sequence, int layer) const {
  const int64_t index = static_cast<int64_t>(sequence) * num_layers_ + layer;
  return reinterpret_cast<float*>(rings_.data()) + index * ring_layout_.floats_per_layer();
}

}  // namespace cairn
