// A paged KV cache for tests: blocks of several sequences that lie scattered in one pool.
#ifndef CAIRN_TESTS_KERNELS_PAGED_CACHE_H_
#define CAIRN_TESTS_KERNELS_PAGED_CACHE_H_

#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/kv_view.h"
#include "tests/kernels/op_testing.h"

namespace cairn {

inline float ReadElement(DType type, const uint8_t* data, int64_t i) {
  if (type == DType::kFloat32) return reinterpret_cast<const float*>(data)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(data)[i];
  return type == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
}

// A pool of blocks, and sequences whose blocks lie scattered in it.
class Cache {
 public:
  Cache(Random& random, KvBlockLayout layout, std::vector<int32_t> capacities) : layout_(layout) {
    int32_t blocks = 3;
    for (int32_t slots : capacities) blocks += (slots + layout.block_size - 1) / layout.block_size;
    // NaN everywhere: what is read without having been written shows.
    pool_ = Buffer::Allocate(Device{}, blocks * layout.block_bytes()).value();
    std::memset(pool_.data(), 0xff, pool_.size_bytes());
    std::vector<int32_t> ids(blocks);
    std::iota(ids.begin(), ids.end(), 0);
    for (int32_t i = blocks - 1; i > 0; --i) std::swap(ids[i], ids[random.Integer(0, i)]);
    for (int32_t slots : capacities) {
      const int32_t count = (slots + layout.block_size - 1) / layout.block_size;
      tables_.emplace_back(ids.end() - count, ids.end());
      ids.resize(ids.size() - count);
    }
  }

  // Sequence i holding `num_slots`.
  KvView View(int i, int32_t num_slots) const {
    KvView view;
    view.layout = layout_;
    view.pool = pool_.data();
    view.block_table = tables_[i].data();
    view.num_slots = num_slots;
    return view;
  }

 private:
  KvBlockLayout layout_;
  Buffer pool_;
  std::vector<std::vector<int32_t>> tables_;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_KERNELS_PAGED_CACHE_H_
