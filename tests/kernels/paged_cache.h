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
  if (type == DType::kFloat8E4M3) return Float8E4M3ToFloat(data[i]);
  const uint16_t bits = reinterpret_cast<const uint16_t*>(data)[i];
  return type == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
}

// A pool of blocks, in host memory or on a context's device, and sequences whose blocks lie scattered in it.
class Cache {
 public:
  Cache(Random& random, KvBlockLayout layout, std::vector<int32_t> capacities, Context* context = nullptr)
      : layout_(layout), context_(context) {
    int32_t blocks = 3;
    for (int32_t slots : capacities) blocks += (slots + layout.block_size - 1) / layout.block_size;
    // NaN everywhere: what is read without having been written shows.
    const Device device = context == nullptr ? Device{} : context->device();
    pool_ = Buffer::Allocate(device, blocks * layout.block_bytes()).value();
    host_pool_.assign(pool_.size_bytes(), 0xff);
    if (device.is_cpu()) {
      std::memset(pool_.data(), 0xff, pool_.size_bytes());
    } else {
      CopyFromHost(*context, host_pool_.data(), Words());
      context->Synchronize();  // other contexts may use the cache
    }
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

  // To look into: the same, with what is on the device now copied to the host. Valid until the next call.
  KvView HostView(int i, int32_t num_slots) {
    KvView view = View(i, num_slots);
    if (pool_.device().is_cpu()) return view;
    CopyToHost(*context_, Words(), host_pool_.data());
    view.pool = host_pool_.data();
    return view;
  }
  size_t size_bytes() const { return pool_.size_bytes(); }
  // Sends what was changed through a HostView.
  void Send() {
    if (!pool_.device().is_cpu()) CopyFromHost(*context_, host_pool_.data(), Words());
  }

 private:
  Tensor Words() const {
    return Tensor(pool_.data(), DType::kInt32, {static_cast<int64_t>(pool_.size_bytes() / 4)}, pool_.device());
  }

  KvBlockLayout layout_;
  Context* context_;
  Buffer pool_;
  std::vector<uint8_t> host_pool_;
  std::vector<std::vector<int32_t>> tables_;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_KERNELS_PAGED_CACHE_H_
