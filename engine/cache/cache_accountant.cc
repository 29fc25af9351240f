#include "engine/cache/cache_accountant.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace cairn {
namespace {

int64_t At(const StageBlocks& blocks, size_t stage) { return blocks.empty() ? 0 : blocks[stage]; }

}  // namespace

CacheAccountant::CacheAccountant(std::vector<StageCapacity> stages, int block_size)
    : stages_(std::move(stages)), block_size_(block_size), used_(stages_.size(), 0), peak_(stages_.size(), 0) {
  CAIRN_CHECK(!stages_.empty() && block_size_ > 0);
}

StageBlocks CacheAccountant::FullCache(int64_t tokens) const {
  return Blocks([tokens](int64_t) { return tokens; });
}

bool CacheAccountant::CanReplace(const StageBlocks& held, const StageBlocks& wanted) const {
  for (size_t s = 0; s < stages_.size(); ++s) {
    if (used_[s] - At(held, s) + At(wanted, s) > stages_[s].num_blocks) return false;
  }
  return true;
}

void CacheAccountant::Replace(StageBlocks& held, StageBlocks wanted) {
  CAIRN_CHECK(CanReplace(held, wanted), "the KV cache was planned over its size");
  for (size_t s = 0; s < stages_.size(); ++s) {
    used_[s] += At(wanted, s) - At(held, s);
    CAIRN_CHECK(used_[s] >= 0);
    peak_[s] = std::max(peak_[s], used_[s]);
  }
  held = std::move(wanted);
}

bool CacheAccountant::Fits(const StageBlocks& wanted) const { return Concurrency(wanted) >= 1; }

double CacheAccountant::Concurrency(const StageBlocks& each) const {
  double sequences = 1e18;
  for (size_t s = 0; s < stages_.size(); ++s) {
    if (At(each, s) > 0) {
      sequences = std::min(sequences, static_cast<double>(stages_[s].num_blocks) / static_cast<double>(each[s]));
    }
  }
  return sequences;
}

int64_t CacheAccountant::MaxTokens() const {
  int64_t blocks = INT64_MAX;
  for (const StageCapacity& stage : stages_) blocks = std::min(blocks, stage.num_blocks / stage.layers.size());
  return blocks * block_size_;
}

int64_t CacheAccountant::Bytes(const StageBlocks& blocks) const {
  int64_t bytes = 0;
  for (size_t s = 0; s < stages_.size(); ++s) bytes += At(blocks, s) * stages_[s].bytes_per_block;
  return bytes;
}

size_t CacheAccountant::Fullest() const {
  const auto share = [this](size_t s) {
    return static_cast<double>(peak_[s]) / static_cast<double>(std::max<int64_t>(1, stages_[s].num_blocks));
  };
  size_t fullest = 0;
  for (size_t s = 1; s < stages_.size(); ++s) {
    if (share(s) > share(fullest)) fullest = s;
  }
  return fullest;
}

}  // namespace cairn
