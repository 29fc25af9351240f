// The slots to keep: the value between policy and mechanism.
#ifndef CAIRN_COMPRESSION_KEEP_PLAN_H_
#define CAIRN_COMPRESSION_KEEP_PLAN_H_

#include <cstdint>

#include "kernels/core/tensor.h"

namespace cairn {

// kept: [rows, K] int32, a row for each KV head of this rank, or one row for all of them; ascending slots of a layer of
// num_slots. Checked when it is made (CHECK, where the host can read it: a plan that breaks this is a bug). Refers to
// the planner's memory until its next plan. On a GPU it lies in its memory.
struct KeepPlan {
  Tensor kept;
  int32_t num_slots = 0;

  int32_t size() const { return static_cast<int32_t>(kept.dim(1)); }
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_KEEP_PLAN_H_
