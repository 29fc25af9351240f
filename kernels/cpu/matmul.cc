// Splits a product into tasks over panels and rows, and these into tiles that stay in the caches. Cuts along K only
// continue the sums (MatMulTile::accumulate), so that no choice made here changes a bit of the result.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

// From this many rows on, panels are widened to f32 once for all rows of a task instead of once per few rows.
constexpr int64_t kWidenRows = 48;
// Rows of a task when there are many: with kBlockK of K they fill about half of a 512 KB L2 cache.
constexpr int64_t kRowChunk = 192;
// K is cut so that a block of one widened panel fills half of a 32 KB L1 cache.
constexpr int64_t kBlockK = 256;
constexpr int64_t kPanelsPerTask = 8;  // when there are many rows: each task reads its rows once per panel group

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One product, with x as the inner loop wants it.
struct Product {
  MatMulTile whole;  // all rows, all panels, all of K
  void (*multiply)(const MatMulTile&);
  void (*multiply_wide)(const MatMulTile&);                     // when widened
  void (*widen)(const uint8_t* panel, int64_t k, float* wide);  // null: multiply panels as they are
  int64_t bytes_per_k;                                          // of a panel
  int64_t block_k;
  int64_t panel_group;  // panels of one tile
};

// Panels [panel_begin, panel_end) for rows [row_begin, row_end).
void RunTask(const Product& p, int64_t row_begin, int64_t row_end, int64_t panel_begin, int64_t panel_end,
             float* wide) {
  const MatMulTile& whole = p.whole;
  for (int64_t k = 0; k < std::max<int64_t>(whole.k, 1); k += p.block_k) {
    MatMulTile tile = whole;
    tile.k = std::min(p.block_k, whole.k - k);
    tile.x = whole.x + row_begin * whole.x_stride + k;
    tile.rows = row_end - row_begin;
    tile.accumulate = k > 0;
    const bool last = k + p.block_k >= whole.k;
    tile.round = last ? whole.round : Format::kF32;
    for (int64_t panel = panel_begin; panel < panel_end; panel += p.panel_group) {
      tile.panels = std::min(p.panel_group, panel_end - panel);
      tile.w = whole.w + panel * whole.panel_bytes + k * p.bytes_per_k;
      tile.y = whole.y + row_begin * whole.y_stride + panel * kPanelColumns;
      tile.columns = std::min(tile.panels * kPanelColumns, whole.columns - panel * kPanelColumns);
      tile.bias = last && whole.bias != nullptr ? whole.bias + panel * kPanelColumns : nullptr;
      if (p.widen == nullptr) {
        p.multiply(tile);
        continue;
      }
      tile.panel_bytes = PanelBytes(Format::kF32, p.block_k);
      for (int64_t i = 0; i < tile.panels; ++i) {
        p.widen(tile.w + i * whole.panel_bytes, tile.k, wide + i * p.block_k * kPanelColumns);
      }
      tile.w = reinterpret_cast<const uint8_t*>(wide);
      p.multiply_wide(tile);
    }
  }
}

// Few rows: tasks of neighbouring panels, several per thread so that threads that are held up elsewhere lag little.
void RunByPanels(Context& context, const Product& p) {
  const int64_t panels = p.whole.panels;
  const int64_t tasks = std::min<int64_t>(CeilDiv(panels, 2), context.threads().num_threads() * 8);
  context.threads().ParallelFor(tasks, [&](int64_t task, int) {
    RunTask(p, 0, p.whole.rows, panels * task / tasks, panels * (task + 1) / tasks, nullptr);
  });
}

// Many rows: tasks of some panels for some rows.
void RunByBlocks(Context& context, const Product& p) {
  const int64_t rows = p.whole.rows, panels = p.whole.panels;
  const int64_t chunks = CeilDiv(rows, kRowChunk), groups = CeilDiv(panels, kPanelsPerTask);
  context.threads().ParallelFor(chunks * groups, [&](int64_t task, int worker) {
    const int64_t chunk = task / groups, group = task % groups;
    float* wide = nullptr;
    if (p.widen != nullptr) {
      wide = static_cast<float*>(context.Scratch(worker, p.panel_group * PanelBytes(Format::kF32, p.block_k)));
    }
    RunTask(p, rows * chunk / chunks, rows * (chunk + 1) / chunks, panels * group / groups,
            panels * (group + 1) / groups, wide);
  });
}

// Replaces x by bf16 pairs along K (context's shared scratch) for the dot product that multiplies such pairs.
void UseBf16Pairs(Context& context, Product& p) {
  const Kernels& kernels = context.cpu_kernels();
  const MatMulTile x = p.whole;
  const int64_t pairs = CeilDiv(x.k, 2);
  uint32_t* packed = static_cast<uint32_t*>(context.SharedScratch(x.rows * pairs * sizeof(uint32_t)));
  ParallelRows(context, x.rows, x.k,
               [&](int64_t row) { kernels.pack_bf16_pairs(x.x + row * x.x_stride, x.k, packed + row * pairs); });
  p.whole.x = reinterpret_cast<const float*>(packed);
  p.whole.x_stride = pairs;
  p.whole.k = pairs;
  p.bytes_per_k *= 2;
  p.multiply = kernels.multiply_bf16_pairs;
  p.widen = nullptr;
}

}  // namespace

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options) {
  const Kernels& kernels = context.cpu_kernels();
  const Format format = FormatOf(w.dtype());
  Product p;
  p.whole.x = x.data<float>();
  p.whole.x_stride = x.row_stride();
  p.whole.rows = x.dim(0);
  p.whole.w = w.data();
  p.whole.panel_bytes = PanelBytes(format, w.cols());
  p.whole.panels = NumPanels(w.rows());
  p.whole.k = w.cols();
  p.whole.y = y.data<float>();
  p.whole.y_stride = y.row_stride();
  p.whole.columns = w.rows();
  p.whole.bias = options.bias;
  p.whole.round = options.round_output ? ActivationFormat(context) : Format::kF32;
  p.multiply = kernels.multiply[static_cast<int>(format)];
  p.multiply_wide = kernels.multiply[static_cast<int>(Format::kF32)];
  p.bytes_per_k = PanelBytes(Format::kF32, 1) / (format == Format::kF32 ? 1 : 2);
  p.block_k = kBlockK;
  p.panel_group = kernels.panels_at_once;
  p.widen = nullptr;
  const bool many_rows = p.whole.rows >= kWidenRows;
  if (many_rows && format != Format::kF32) p.widen = kernels.widen_panel[static_cast<int>(format)];
  if (format == Format::kBf16 && kernels.multiply_bf16_pairs != nullptr &&
      context.activation_dtype() == DType::kBFloat16) {
    UseBf16Pairs(context, p);
  }
  if (many_rows) {
    RunByBlocks(context, p);
    return;
  }
  if (p.whole.rows <= kernels.max_rows) {  // the sums stay in registers over all of K
    p.block_k = std::max<int64_t>(p.whole.k, 1);
    p.panel_group = p.whole.panels;
  }
  RunByPanels(context, p);
}

}  // namespace cairn::cpu
