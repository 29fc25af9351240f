#include "bench/gpu/paged_layer.h"

#include <algorithm>

#include "kernels/core/copy.h"

namespace cairn::bench {
namespace {

constexpr int kBlockSize = 16;

}  // namespace

PagedLayer::PagedLayer(Gpu& gpu, int kv_heads, int head_dim, int64_t sequences, int32_t slots) {
  const KvBlockLayout layout = {kv_heads, head_dim, kBlockSize, DType::kBFloat16};
  const int32_t blocks = (slots + kBlockSize - 1) / kBlockSize;
  const int64_t pool_bytes = sequences * blocks * static_cast<int64_t>(layout.block_bytes());
  // Positions are random bits too: without a sliding window nothing reads them.
  pool_ = gpu.AllocateRandom(LtType::kBFloat16, pool_bytes / 2);
  tables_.assign(static_cast<size_t>(sequences), std::vector<int32_t>(static_cast<size_t>(blocks)));
  for (int64_t s = 0; s < sequences; ++s) {
    for (int32_t b = 0; b < blocks; ++b) tables_[s][b] = static_cast<int32_t>(b * sequences + s);
    rows_.push_back({static_cast<int32_t>(s), 1, {layout, pool_.data(), tables_[s].data(), slots}});
  }
  bytes_ = 2.0 * 2 * static_cast<double>(sequences) * slots * kv_heads * head_dim;
}

}  // namespace cairn::bench
