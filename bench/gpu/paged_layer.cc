#include "bench/gpu/paged_layer.h"

#include <algorithm>

#include "kernels/core/key_memory.h"
#include "kernels/cuda/device_state.h"

namespace cairn::bench {
namespace {

constexpr int kBlockSize = 16;

}  // namespace

PagedLayer::PagedLayer(Gpu& gpu, int kv_heads, int head_dim, int64_t sequences, int32_t slots, int num_scores)
    : gpu_(gpu), layout_{kv_heads, head_dim, kBlockSize, DType::kBFloat16, num_scores} {
  const int32_t blocks = (slots + kBlockSize - 1) / kBlockSize;
  const int64_t pool_bytes = sequences * blocks * static_cast<int64_t>(layout_.block_bytes());
  // Positions are random bits too: without a sliding window nothing reads them.
  pool_ = gpu.AllocateRandom(LtType::kBFloat16, pool_bytes / 2);
  tables_.assign(static_cast<size_t>(sequences), std::vector<int32_t>(static_cast<size_t>(blocks)));
  for (int64_t s = 0; s < sequences; ++s) {
    for (int32_t b = 0; b < blocks; ++b) tables_[s][b] = static_cast<int32_t>(b * sequences + s);
    rows_.push_back({static_cast<int32_t>(s), 1, {layout_, pool_.data(), tables_[s].data(), slots}});
  }
  bytes_ = 2.0 * 2 * static_cast<double>(sequences) * slots * kv_heads * head_dim;
}

void PagedLayer::SetMemory(int32_t new_slots) {
  const size_t width = layout_.block_bytes() - layout_.position_offset();
  const size_t blocks = pool_.size_bytes() / layout_.block_bytes();
  if (marks_.size_bytes() == 0) {
    const int32_t old_slots = rows_[0].kv.num_slots - new_slots;
    std::vector<uint8_t> marks(blocks * width);
    for (size_t block = 0; block < blocks; ++block) {
      uint8_t* const base = marks.data() + block * width;
      int32_t* positions = reinterpret_cast<int32_t*>(base);
      int32_t* memory = reinterpret_cast<int32_t*>(base + layout_.position_plane_bytes());
      for (int i = 0; i < layout_.kv_heads * kBlockSize; ++i) {
        positions[i] = static_cast<int32_t>(block / rows_.size()) * kBlockSize + i % kBlockSize;
        memory[i] = positions[i] < old_slots ? KeyMemory::kAlone : KeyMemory::kNew;
      }
    }
    marks_ = gpu_.Allocate(marks.size());
    marks_.Fill(marks.data(), marks.size(), 0);
  }
  gpu_.context().cuda().CopyWithin(pool_.data() + layout_.position_offset(), layout_.block_bytes(), marks_.data(),
                                   width, width, blocks);
}

}  // namespace cairn::bench
