// How many KV blocks sequences take on every stage: arithmetic only, so that the scheduling rank knows every rank's
// pool without a message.
#ifndef CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_
#define CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_

#include <cstdint>
#include <vector>

#include "engine/cache/cache_layers.h"

namespace cairn {

// Ranks that hold as many blocks as each other: those of a pipeline stage, or where KV heads have budgets of their own
// one rank of it. The pool is the smallest of theirs.
struct StageCapacity {
  int64_t num_blocks = 0;
  CacheLayers layers = {};
  int64_t bytes_per_block = 0;  // summed over those ranks
};

// A number of blocks on each stage.
using StageBlocks = std::vector<int64_t>;

class CacheAccountant {
 public:
  CacheAccountant(std::vector<StageCapacity> stages, int block_size);

  // What a sequence takes that has slots(b) slots where the b-th budget holds (NumBudgets).
  template <typename SlotsOfBudget>
  StageBlocks Blocks(const SlotsOfBudget& slots) const {
    StageBlocks blocks(stages_.size(), 0);
    for (size_t s = 0; s < stages_.size(); ++s) {
      const CacheLayers& layers = stages_[s].layers;
      for (int64_t l = 0; l < layers.size(); ++l) {
        blocks[s] += (slots(layers.budget(l)) + block_size_ - 1) / block_size_;
      }
    }
    return blocks;
  }
  StageBlocks FullCache(int64_t tokens) const;

  // Whether a sequence that holds `held` (empty: nothing) can hold `wanted` instead, now; and the change.
  bool CanReplace(const StageBlocks& held, const StageBlocks& wanted) const;
  void Replace(StageBlocks& held, StageBlocks wanted);
  void Release(StageBlocks& held) { Replace(held, {}); }
  // Whether an otherwise empty cache can hold it.
  bool Fits(const StageBlocks& wanted) const;
  // How many sequences that hold `each` fit together.
  double Concurrency(const StageBlocks& each) const;

  int block_size() const { return block_size_; }
  // The longest uncompressed sequence that fits an otherwise empty cache.
  int64_t MaxTokens() const;
  // Bytes over all ranks of the replica.
  int64_t Bytes(const StageBlocks& blocks) const;

  // Of the stage that has used the largest share of its pool.
  int64_t total_blocks() const { return stages_[Fullest()].num_blocks; }
  int64_t used_blocks() const { return used_[Fullest()]; }
  int64_t peak_used_blocks() const { return peak_[Fullest()]; }

 private:
  size_t Fullest() const;

  std::vector<StageCapacity> stages_;
  int block_size_;
  StageBlocks used_, peak_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_CACHE_ACCOUNTANT_H_
