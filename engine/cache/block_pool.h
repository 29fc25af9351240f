// The free list of a rank's KV blocks. All blocks are alike: any layer of any sequence may take any of them.
#ifndef CAIRN_ENGINE_CACHE_BLOCK_POOL_H_
#define CAIRN_ENGINE_CACHE_BLOCK_POOL_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/core/check.h"

namespace cairn {

class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks) {
    CAIRN_CHECK(num_blocks >= 0 && num_blocks <= INT32_MAX, num_blocks);
    free_.reserve(num_blocks);
    for (int64_t i = num_blocks; i-- > 0;) free_.push_back(static_cast<int32_t>(i));  // block 0 is handed out first
    num_blocks_ = num_blocks;
  }

  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return num_blocks_ - num_free(); }
  int64_t peak_used() const { return peak_used_; }

  // The scheduler counts blocks before it plans, so an empty pool here is a bug of ours.
  int32_t Allocate() {
    CAIRN_CHECK(!free_.empty(), "KV block pool of ", num_blocks_, " blocks is empty");
    const int32_t block = free_.back();
    free_.pop_back();
    peak_used_ = std::max(peak_used_, num_used());
    return block;
  }
  void Free(int32_t block) {
    free_.push_back(block);
    CAIRN_CHECK(num_free() <= num_blocks_, "block ", block, " was freed twice");
  }

 private:
  int64_t num_blocks_ = 0, peak_used_ = 0;
  std::vector<int32_t> free_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_BLOCK_POOL_H_
