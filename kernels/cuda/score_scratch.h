// What the score ops take of a context's shared scratch for a layer of up to `slots` slots.
#ifndef CAIRN_KERNELS_CUDA_SCORE_SCRATCH_H_
#define CAIRN_KERNELS_CUDA_SCORE_SCRATCH_H_

#include <cstddef>
#include <cstdint>

#include "kernels/core/kv_view.h"

namespace cairn::cuda {

// Window importance and attention, with `vectors` query vectors for each KV head.
size_t WindowScratchBytes(const KvBlockLayout& layout, int32_t slots, int64_t vectors);
// Redundancy and KeyDiff.
size_t KeyScratchBytes(const KvBlockLayout& layout, int32_t slots);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_SCORE_SCRATCH_H_
