// The slots to keep: the value between policy and mechanism.
#ifndef CAIRN_COMPRESSION_KEEP_PLAN_H_
#define CAIRN_COMPRESSION_KEEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/core/tensor.h"

namespace cairn {

// What some layers keep. kept: [layers * rows, the largest K] int32, for each layer a row for each KV head of this
// rank, or one row for all of them; the first sizes[l] numbers of a row are the l-th layer's ascending slots. Checked
// when it is made (CHECK, where the host can read it: a plan that breaks this is a bug). Refers to the planner's memory
// until its next plan. On a GPU it lies in its memory.
struct KeepPlan {
  Tensor kept;
  std::vector<int32_t> sizes;

  // [rows, K] of one layer.
  Tensor Of(size_t layer) const {
    const int64_t rows = kept.dim(0) / static_cast<int64_t>(sizes.size()), first = static_cast<int64_t>(layer) * rows;
    return kept.Rows(first, first + rows).Columns(0, sizes[layer]);
  }
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_KEEP_PLAN_H_
