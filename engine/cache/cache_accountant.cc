#include "engine/cache/cache_accountant.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace cairn {

CacheAccountant::CacheAccountant(std::vector<StageCapacity> stages, int block_size)
    : stages_(std::move(stages)), block_size_(block_size) {
  CAIRN_CHECK(!stages_.empty() && block_size_ > 0);
  max_per_layer_ = INT64_MAX;
  for (size_t i = 0; i < stages_.size(); ++i) {
    const int64_t per_layer = stages_[i].num_blocks / stages_[i].num_layers;
    if (per_layer < max_per_layer_) {
      max_per_layer_ = per_layer;
      tightest_ = static_cast<int>(i);
    }
  }
}

bool CacheAccountant::CanGrow(int64_t held_tokens, int64_t tokens) const {
  return used_per_layer_ - BlocksPerLayer(held_tokens) + BlocksPerLayer(tokens) <= max_per_layer_;
}

void CacheAccountant::Grow(int64_t held_tokens, int64_t tokens) {
  CAIRN_CHECK(CanGrow(held_tokens, tokens));
  used_per_layer_ += BlocksPerLayer(tokens) - BlocksPerLayer(held_tokens);
  peak_per_layer_ = std::max(peak_per_layer_, used_per_layer_);
}

void CacheAccountant::Release(int64_t held_tokens) {
  used_per_layer_ -= BlocksPerLayer(held_tokens);
  CAIRN_CHECK(used_per_layer_ >= 0);
}

int64_t CacheAccountant::MaxTokens() const { return max_per_layer_ * block_size_; }

int64_t CacheAccountant::BytesFor(int64_t tokens) const {
  int64_t bytes = 0;
  for (const StageCapacity& stage : stages_) bytes += BlocksPerLayer(tokens) * stage.num_layers * stage.bytes_per_block;
  return bytes;
}

int64_t CacheAccountant::total_blocks() const { return max_per_layer_ * stages_[tightest_].num_layers; }
int64_t CacheAccountant::used_blocks() const { return used_per_layer_ * stages_[tightest_].num_layers; }
int64_t CacheAccountant::peak_used_blocks() const { return peak_per_layer_ * stages_[tightest_].num_layers; }

}  // namespace cairn
