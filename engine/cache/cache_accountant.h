// How many KV blocks sequences take on every stage: arithmetic only, so that the scheduling rank knows every rank's
// pool without a message.
#ifndef CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_
#define CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_

#include <cstdint>
#include <vector>

namespace cairn {

// One pipeline stage: its pool (the smallest of its tp ranks) and its layers.
struct StageCapacity {
  int64_t num_blocks = 0;
  int64_t num_layers = 0;
  int64_t bytes_per_block = 0;  // summed over the stage's tp ranks
};

class CacheAccountant {
 public:
  CacheAccountant(std::vector<StageCapacity> stages, int block_size);

  // Whether a sequence that holds `held_tokens` can grow to `tokens` now.
  bool CanGrow(int64_t held_tokens, int64_t tokens) const;
  void Grow(int64_t held_tokens, int64_t tokens);
  void Release(int64_t held_tokens);

  int block_size() const { return block_size_; }
  // The longest sequence that fits an otherwise empty cache.
  int64_t MaxTokens() const;
  // Bytes over all ranks of the replica that a sequence of `tokens` holds.
  int64_t BytesFor(int64_t tokens) const;

  // Of the tightest stage (the one with the largest used share).
  int64_t total_blocks() const;
  int64_t used_blocks() const;
  int64_t peak_used_blocks() const;

 private:
  int64_t BlocksPerLayer(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  std::vector<StageCapacity> stages_;
  int block_size_;
  // All layers have equal lengths, so a stage's use is its layers times this.
  int64_t used_per_layer_ = 0, peak_per_layer_ = 0;
  int64_t max_per_layer_ = 0;  // what the tightest stage can give every one of its layers
  int tightest_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_
