#include "engine/cache/kv_cache.h"

#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/kv_select.h"

namespace cairn {

absl::StatusOr<KvCache> KvCache::Create(Device device, const KvBlockLayout& layout, const QueryRingLayout& rings,
                                        int num_layers, int64_t num_blocks, int max_sequences) {
  CAIRN_ASSIGN_OR_RETURN(Buffer memory,
                         Buffer::Allocate(device, static_cast<size_t>(num_blocks) * layout.block_bytes()));
  CAIRN_ASSIGN_OR_RETURN(Buffer ring_memory, Buffer::Allocate(device, static_cast<size_t>(max_sequences) * num_layers *
                                                                          rings.floats_per_layer() * sizeof(float)));
  return KvCache(std::move(memory), std::move(ring_memory), layout, rings, num_layers, num_blocks, max_sequences);
}

KvCache::KvCache(Buffer memory, Buffer rings, const KvBlockLayout& layout, const QueryRingLayout& ring_layout,
                 int num_layers, int64_t num_blocks, int max_sequences)
    : memory_(std::move(memory)),
      rings_(std::move(rings)),
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
  for (LayerState& layer : sequences_[sequence].layers) {
    layer.num_slots += num_tokens;
    while (static_cast<int64_t>(layer.blocks.size()) * layout_.block_size < layer.num_slots) {
      layer.blocks.push_back(pool_.Allocate());
    }
  }
}

void KvCache::Compact(Context& context, int sequence, int layer, const Tensor& kept) {
  CAIRN_CHECK(sequences_[sequence].open, "sequence ", sequence, " is not open");
  LayerState& state = sequences_[sequence].layers[layer];
  const int32_t K = static_cast<int32_t>(kept.dim(1));
  CAIRN_CHECK(K <= state.num_slots, "keeps ", K, " of ", state.num_slots, " slots");
  KvCompact(context, View(sequence, layer), kept);
  state.num_slots = K;
  const size_t blocks = (K + layout_.block_size - 1) / layout_.block_size;
  while (state.blocks.size() > blocks) {
    pool_.Free(state.blocks.back());
    state.blocks.pop_back();
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
  return KvView{
      .layout = layout_, .pool = memory_.data(), .block_table = state.blocks.data(), .num_slots = state.num_slots};
}

float* KvCache::QueryRing(int sequence, int layer) const {
  const int64_t index = static_cast<int64_t>(sequence) * num_layers_ + layer;
  return reinterpret_cast<float*>(rings_.data()) + index * ring_layout_.floats_per_layer();
}

}  // namespace cairn
