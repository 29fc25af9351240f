#include "engine/cache/kv_cache.h"

#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<KvCache> KvCache::Create(Device device, const KvBlockLayout& layout, int num_layers, int64_t num_blocks,
                                        int max_sequences) {
  CAIRN_ASSIGN_OR_RETURN(Buffer memory,
                         Buffer::Allocate(device, static_cast<size_t>(num_blocks) * layout.block_bytes()));
  return KvCache(std::move(memory), layout, num_layers, num_blocks, max_sequences);
}

KvCache::KvCache(Buffer memory, const KvBlockLayout& layout, int num_layers, int64_t num_blocks, int max_sequences)
    : memory_(std::move(memory)), layout_(layout), num_layers_(num_layers), pool_(num_blocks) {
  sequences_.resize(max_sequences);
  for (Sequence& sequence : sequences_) sequence.layers.resize(num_layers);
}

void KvCache::Open(int sequence) {
  CAIRN_CHECK(!sequences_[sequence].open, "sequence ", sequence, " is open already");
  sequences_[sequence].open = true;
}

void KvCache::Append(int sequence, int num_tokens) {
  CAIRN_CHECK(sequences_[sequence].open, "sequence ", sequence, " is not open");
  for (LayerState& layer : sequences_[sequence].layers) {
    layer.num_slots += num_tokens;
    while (static_cast<int64_t>(layer.blocks.size()) * layout_.block_size < layer.num_slots) {
      layer.blocks.push_back(pool_.Allocate());
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
}

KvView KvCache::View(int sequence, int layer) const {
  const LayerState& state = sequences_[sequence].layers[layer];
  return KvView{
      .layout = layout_, .pool = memory_.data(), .block_table = state.blocks.data(), .num_slots = state.num_slots};
}

}  // namespace cairn
