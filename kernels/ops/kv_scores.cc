#include "kernels/ops/kv_scores.h"

#include "kernels/cpu/kv_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {
namespace {

// A row per KV head, of at most all slots.
void CheckScores(const char* op, const char* name, const Context& context, const KvView& kv, const Tensor& scores) {
  CheckOperand(op, name, context, scores, DType::kFloat32, 2);
  CheckDim(op, name, scores, 0, kv.layout.kv_heads);
  CAIRN_CHECK(scores.dim(1) <= kv.num_slots, op, ": ", name, " has ", scores.dim(1), " columns for ", kv.num_slots,
              " slots");
}

void CheckQueries(const char* op, const Context& context, const KvView& kv, const Tensor& queries) {
  CheckOperand(op, "queries", context, queries, DType::kFloat32, 3);
  CheckDim(op, "queries", queries, 2, kv.layout.head_dim);
  CAIRN_CHECK(kv.layout.kv_heads > 0 && queries.dim(1) % kv.layout.kv_heads == 0, op, ": ", queries.dim(1),
              " query heads over ", kv.layout.kv_heads, " KV heads");
  CAIRN_CHECK(queries.dim(0) > 0 && queries.dim(0) <= kv.num_slots, op, ": ", queries.dim(0), " queries of ",
              kv.num_slots, " slots");
}

void CheckSameShape(const char* op, const Context& context, const Tensor& x, const Tensor& y) {
  CheckOperand(op, "x", context, x, DType::kFloat32, 2);
  CheckOperand(op, "y", context, y, DType::kFloat32, 2);
  for (int i = 0; i < 2; ++i) CheckDim(op, "y", y, i, x.dim(i));
}

}  // namespace

void ReserveScoreMemory([[maybe_unused]] Context& context, [[maybe_unused]] const KvBlockLayout& layout, int32_t slots,
                        int64_t vectors) {
  CAIRN_CHECK(slots >= 0 && vectors >= 0, "ReserveScoreMemory: ", slots, " slots, ", vectors, " query vectors");
#if CAIRN_CUDA
  if (!context.device().is_cpu()) cuda::ReserveScoreMemory(context, layout, slots, vectors);
#endif
}

void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out) {
  CheckQueries("WindowImportance", context, kv, queries);
  CheckScores("WindowImportance", "out", context, kv, out);
  CheckDim("WindowImportance", "out", out, 1, kv.num_slots - queries.dim(0));
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, WindowImportance, kv, queries, out);
}

void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce,
                     const Tensor& out) {
  CheckQueries("WindowAttention", context, kv, queries);
  CheckScores("WindowAttention", "out", context, kv, out);
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, WindowAttention, kv, queries, reduce, out);
}

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out) {
  CheckScores("KeyRedundancy", "out", context, kv, out);
  CAIRN_CHECK(!remembers || (kv.layout.has_score && variant == RedundancyVariant::kCode),
              "KeyRedundancy: no plane to remember in");
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, KeyRedundancy, kv, threshold, variant, remembers, out);
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  CheckScores("KeyDifference", "out", context, kv, out);
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, KeyDifference, kv, out);
}

void SlotRecency(Context& context, int32_t num_slots, const Tensor& out) {
  CheckOperand("SlotRecency", "out", context, out, DType::kFloat32, 2);
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, SlotRecency, num_slots, out);
}

void RandomScores(Context& context, const KvView& kv, int32_t layer, int32_t first_kv_head, const Tensor& out) {
  CheckScores("RandomScores", "out", context, kv, out);
  if (out.num_elements() == 0) return;
  CAIRN_DISPATCH(context, RandomScores, kv, layer, first_kv_head, out);
}

void PoolSlots(Context& context, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out) {
  CheckSameShape("PoolSlots", context, x, out);
  CAIRN_CHECK(kernel_size > 0 && kernel_size % 2 == 1, "PoolSlots: kernel ", kernel_size);
  CAIRN_CHECK(x.raw() != out.raw(), "PoolSlots: x and out are one tensor");
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, PoolSlots, x, pooling, kernel_size, out);
}

void DivideByRowMax(Context& context, const Tensor& x) {
  CheckOperand("DivideByRowMax", "x", context, x, DType::kFloat32, 2);
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, DivideByRowMax, x);
}

void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out) {
  CheckSameShape("MixScores", context, x, y);
  CheckSameShape("MixScores", context, x, out);
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, MixScores, a, x, b, y, out);
}

void AddToRunningScores(Context& context, const KvView& kv, float factor, const Tensor& added, const Tensor& scores) {
  CAIRN_CHECK(kv.layout.has_score, "AddToRunningScores: the cache holds no scores");
  CheckScores("AddToRunningScores", "added", context, kv, added);
  CheckDim("AddToRunningScores", "added", added, 1, kv.num_slots);
  CheckScores("AddToRunningScores", "scores", context, kv, scores);
  if (added.num_elements() == 0) return;
  CAIRN_DISPATCH(context, AddToRunningScores, kv, factor, added, scores);
}

void DecayRunningScores(Context& context, const KvView& kv, float decay, const Tensor& current, const Tensor& scores) {
  CAIRN_CHECK(kv.layout.has_score, "DecayRunningScores: the cache holds no scores");
  CheckScores("DecayRunningScores", "current", context, kv, current);
  CheckSameShape("DecayRunningScores", context, current, scores);
  if (current.num_elements() == 0) return;
  CAIRN_DISPATCH(context, DecayRunningScores, kv, decay, current, scores);
}

}  // namespace cairn
