#include "kernels/ops/kv_scores.h"

#include "kernels/cpu/kv_ops.h"
#include "kernels/ops/dispatch.h"

namespace cairn {
namespace {

int64_t NumLayers(absl::Span<const KvView> kv) { return static_cast<int64_t>(kv.size()); }

// All of one cache, with at least `window` slots.
void CheckLayers(const char* op, absl::Span<const KvView> kv, int64_t window) {
  CAIRN_CHECK(!kv.empty(), op, ": no layer");
  for (const KvView& view : kv) {
    CAIRN_CHECK(
        view.layout.kv_heads == kv[0].layout.kv_heads && view.layout.block_bytes() == kv[0].layout.block_bytes(), op,
        ": layers of different caches");
    CAIRN_CHECK(window >= 0 && window <= view.num_slots, op, ": a window of ", window, " in ", view.num_slots,
                " slots");
  }
}

// A row for each KV head of each layer, with a column for each slot but the last `left_out`.
void CheckScores(const char* op, const char* name, const Context& context, absl::Span<const KvView> kv, int left_out,
                 const Tensor& scores) {
  CheckOperand(op, name, context, scores, DType::kFloat32, 2);
  CheckDim(op, name, scores, 0, NumLayers(kv) * kv[0].layout.kv_heads);
  for (const KvView& view : kv) {
    CAIRN_CHECK(scores.dim(1) >= view.num_slots - left_out, op, ": ", name, " has ", scores.dim(1), " columns for ",
                view.num_slots - left_out, " slots");
  }
}

// Their rows for each layer.
int CheckQueries(const char* op, const Context& context, absl::Span<const KvView> kv, const Tensor& queries) {
  CheckOperand(op, "queries", context, queries, DType::kFloat32, 3);
  CAIRN_CHECK(!kv.empty() && queries.dim(0) > 0 && queries.dim(0) % NumLayers(kv) == 0, op, ": ", queries.dim(0),
              " rows of queries for ", kv.size(), " layers");
  CheckDim(op, "queries", queries, 2, kv[0].layout.head_dim);
  CAIRN_CHECK(kv[0].layout.kv_heads > 0 && queries.dim(1) % kv[0].layout.kv_heads == 0, op, ": ", queries.dim(1),
              " query heads over ", kv[0].layout.kv_heads, " KV heads");
  const int window = static_cast<int>(queries.dim(0) / NumLayers(kv));
  CheckLayers(op, kv, window);
  return window;
}

void CheckSameShape(const char* op, const Context& context, const Tensor& x, const Tensor& y) {
  CheckOperand(op, "x", context, x, DType::kFloat32, 2);
  CheckOperand(op, "y", context, y, DType::kFloat32, 2);
  for (int i = 0; i < 2; ++i) CheckDim(op, "y", y, i, x.dim(i));
}

void CheckColumns(const char* op, const Tensor& x, absl::Span<const int32_t> columns) {
  CAIRN_CHECK(!columns.empty() && x.dim(0) % static_cast<int64_t>(columns.size()) == 0, op, ": ", x.dim(0), " rows of ",
              columns.size(), " layers");
  for (const int32_t count : columns) CAIRN_CHECK(count >= 0 && count <= x.dim(1), op, ": ", count, " of ", x.dim(1));
}

// The rows and columns of one layer of `layers`.
Tensor LayerOf(const Tensor& x, int64_t layer, size_t layers, int64_t columns) {
  const int64_t rows = x.dim(0) / static_cast<int64_t>(layers);
  return x.Rows(layer * rows, (layer + 1) * rows).Columns(0, columns);
}

}  // namespace

void ReserveScoreMemory([[maybe_unused]] Context& context, [[maybe_unused]] const KvBlockLayout& layout, int32_t slots,
                        int64_t vectors) {
  CAIRN_CHECK(slots >= 0 && vectors >= 0, "ReserveScoreMemory: ", slots, " slots, ", vectors, " query vectors");
#if CAIRN_CUDA
  if (!context.device().is_cpu()) cuda::ReserveScoreMemory(context, layout, slots, vectors);
#endif
}

void WindowImportance(Context& context, absl::Span<const KvView> kv, const Tensor& queries, int left_out,
                      const Tensor& out) {
  const int window = CheckQueries("WindowImportance", context, kv, queries);
  CheckLayers("WindowImportance", kv, left_out);
  CheckScores("WindowImportance", "out", context, kv, left_out, out);
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, WindowImportance, kv, queries, left_out, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::WindowImportance(context, kv[l], queries.Rows(l * window, (l + 1) * window),
                          LayerOf(out, l, kv.size(), kv[l].num_slots - left_out));
  }
}

void WindowAttention(Context& context, absl::Span<const KvView> kv, const Tensor& queries, WindowReduce reduce,
                     int left_out, const Tensor& out) {
  const int window = CheckQueries("WindowAttention", context, kv, queries);
  CheckLayers("WindowAttention", kv, left_out);
  CheckScores("WindowAttention", "out", context, kv, left_out, out);
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, WindowAttention, kv, queries, reduce, left_out, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::WindowAttention(context, kv[l], queries.Rows(l * window, (l + 1) * window), reduce,
                         LayerOf(out, l, kv.size(), kv[l].num_slots - left_out));
  }
}

void KeyRedundancy(Context& context, absl::Span<const KvView> kv, int window, float threshold,
                   RedundancyVariant variant, bool remembers, const Tensor& out) {
  CheckLayers("KeyRedundancy", kv, window);
  CheckScores("KeyRedundancy", "out", context, kv, window, out);
  CAIRN_CHECK(!remembers || (kv[0].layout.num_scores > 0 && variant == RedundancyVariant::kCode),
              "KeyRedundancy: no plane to remember in");
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, KeyRedundancy, kv, window, threshold, variant, remembers, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::KeyRedundancy(context, kv[l], threshold, variant, remembers,
                       LayerOf(out, l, kv.size(), kv[l].num_slots - window));
  }
}

void KeyDifference(Context& context, absl::Span<const KvView> kv, int window, const Tensor& out) {
  CheckLayers("KeyDifference", kv, window);
  CheckScores("KeyDifference", "out", context, kv, window, out);
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, KeyDifference, kv, window, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::KeyDifference(context, kv[l], LayerOf(out, l, kv.size(), kv[l].num_slots - window));
  }
}

void SlotRecency(Context& context, absl::Span<const KvView> kv, const Tensor& out) {
  CheckLayers("SlotRecency", kv, 0);
  CheckOperand("SlotRecency", "out", context, out, DType::kFloat32, 2);
  CheckDim("SlotRecency", "out", out, 0, NumLayers(kv) * kv[0].layout.kv_heads);
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, SlotRecency, kv, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::SlotRecency(context, kv[l].num_slots, LayerOf(out, l, kv.size(), out.dim(1)));
  }
}

void RandomScores(Context& context, absl::Span<const KvView> kv, int window, absl::Span<const int32_t> layers,
                  int32_t first_kv_head, const Tensor& out) {
  CheckLayers("RandomScores", kv, window);
  CheckScores("RandomScores", "out", context, kv, window, out);
  CAIRN_CHECK(layers.size() == kv.size(), "RandomScores: ", layers.size(), " numbers of ", kv.size(), " layers");
  if (out.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, RandomScores, kv, window, layers, first_kv_head, out);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::RandomScores(context, kv[l], layers[l], first_kv_head, LayerOf(out, l, kv.size(), kv[l].num_slots - window));
  }
}

void PoolSlots(Context& context, const Tensor& x, absl::Span<const int32_t> columns, Pooling pooling, int kernel_size,
               const Tensor& out) {
  CheckSameShape("PoolSlots", context, x, out);
  CheckColumns("PoolSlots", x, columns);
  CAIRN_CHECK(kernel_size > 0 && kernel_size % 2 == 1, "PoolSlots: kernel ", kernel_size);
  CAIRN_CHECK(x.raw() != out.raw(), "PoolSlots: x and out are one tensor");
  if (x.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, PoolSlots, x, columns, pooling, kernel_size, out);
  for (size_t l = 0; l < columns.size(); ++l) {
    cpu::PoolSlots(context, LayerOf(x, l, columns.size(), columns[l]), pooling, kernel_size,
                   LayerOf(out, l, columns.size(), columns[l]));
  }
}

void DivideByRowMax(Context& context, const Tensor& x, absl::Span<const int32_t> columns) {
  CheckOperand("DivideByRowMax", "x", context, x, DType::kFloat32, 2);
  CheckColumns("DivideByRowMax", x, columns);
  if (x.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, DivideByRowMax, x, columns);
  for (size_t l = 0; l < columns.size(); ++l) {
    cpu::DivideByRowMax(context, LayerOf(x, l, columns.size(), columns[l]));
  }
}

void MixScores(Context& context, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out) {
  CheckSameShape("MixScores", context, x, y);
  CheckSameShape("MixScores", context, x, out);
  if (x.num_elements() == 0) return;
  CAIRN_DISPATCH(context, MixScores, a, x, b, y, out);
}

void AddToRunningScores(Context& context, absl::Span<const KvView> kv, int window, float factor, const Tensor& added,
                        const Tensor& scores) {
  CheckLayers("AddToRunningScores", kv, window);
  CAIRN_CHECK(kv[0].layout.num_scores > 0, "AddToRunningScores: the cache holds no scores");
  CheckScores("AddToRunningScores", "added", context, kv, 0, added);
  CheckScores("AddToRunningScores", "scores", context, kv, window, scores);
  if (added.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, AddToRunningScores, kv, window, factor, added, scores);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::AddToRunningScores(context, kv[l], factor, LayerOf(added, l, kv.size(), kv[l].num_slots),
                            LayerOf(scores, l, kv.size(), kv[l].num_slots - window));
  }
}

void DecayRunningScores(Context& context, absl::Span<const KvView> kv, int window, float decay, const Tensor& current,
                        const Tensor& scores) {
  CheckLayers("DecayRunningScores", kv, window);
  CAIRN_CHECK(kv[0].layout.num_scores > 0, "DecayRunningScores: the cache holds no scores");
  CheckScores("DecayRunningScores", "current", context, kv, window, current);
  CheckSameShape("DecayRunningScores", context, current, scores);
  if (current.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, DecayRunningScores, kv, window, decay, current, scores);
  for (size_t l = 0; l < kv.size(); ++l) {
    const int64_t columns = kv[l].num_slots - window;
    cpu::DecayRunningScores(context, kv[l], decay, LayerOf(current, l, kv.size(), columns),
                            LayerOf(scores, l, kv.size(), columns));
  }
}

void AverageRunningScores(Context& context, absl::Span<const KvView> kv, int window, int plane,
                          absl::Span<const int32_t> windows, const Tensor& current, const Tensor& scores) {
  CheckLayers("AverageRunningScores", kv, window);
  CAIRN_CHECK(plane >= 0 && plane < kv[0].layout.num_scores, "AverageRunningScores: plane ", plane, " of ",
              kv[0].layout.num_scores);
  CAIRN_CHECK(window > 0 && windows.size() == kv.size(), "AverageRunningScores: ", windows.size(), " counts for ",
              kv.size(), " layers");
  CheckScores("AverageRunningScores", "current", context, kv, 0, current);
  CheckScores("AverageRunningScores", "scores", context, kv, window, scores);
  if (current.num_elements() == 0) return;
  CAIRN_RETURN_ON_GPU(context, AverageRunningScores, kv, window, plane, windows, current, scores);
  for (size_t l = 0; l < kv.size(); ++l) {
    cpu::AverageRunningScores(context, kv[l], window, plane, windows[l],
                              LayerOf(current, l, kv.size(), kv[l].num_slots),
                              LayerOf(scores, l, kv.size(), kv[l].num_slots - window));
  }
}

}  // namespace cairn
