// What R-KV's redundancy remembers of a key from one compaction to the next (kernels/ops/kv_scores.h): a word of the
// plane of scores, which a compaction moves with its slot.
#ifndef CAIRN_KERNELS_CORE_KEY_MEMORY_H_
#define CAIRN_KERNELS_CORE_KEY_MEMORY_H_

#include <cstdint>

namespace cairn {

// Not looked at yet; without a near-duplicate; or kFirstPosition + the position of the newest one.
struct KeyMemory {
  static constexpr int32_t kNew = 0, kAlone = 1, kFirstPosition = 2;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_KEY_MEMORY_H_
