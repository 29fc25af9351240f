// Splits a product into tasks over panels and rows, and these into tiles that stay in the caches. Cuts along K only
// continue the sums (MatMulTile::accumulate), so that no choice made here changes a bit of the result.
#include <algorithm>

#include "kernels/core/float8.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

// What one task works on at a time, and how many of its panels; cut so that it stays in the caches.
struct Blocking {
  int64_t rows;
  int64_t panels;
  int64_t k;
  int64_t tasks_per_thread;  // if the rows are one task's
};

// 48 rows of x take 192 KB and stay in the L2 cache while the task's panels pass; a block of a bf16 panel fills a 32 KB
// L1 cache and not more. (Measured on Zen 3 at 512 rows: 95 % of peak with 48 rows and 1024 of K, 85-90 % with 192 rows
// and 256. Widening the panel to f32 first cost 5 % of peak.)
constexpr Blocking kVectorBlocking = {.rows = 48, .panels = 8, .k = 1024, .tasks_per_thread = 8};

// Tiles multiply so fast that weights from memory must serve many rows: 256 rows of x take 768 KB of the L2 cache and a
// task's sums 512 KB. (K counts pairs. On two cores of a Sapphire Rapids: 1.5 to 2 TFLOP/s at 128 and 512 rows, where
// 48 rows and 1024 of K gave 0.8 to 1. 256 of K, with which two panels stay in the L1 cache, is slower. Eight tasks a
// thread read x four times as often as two: 10 to 30 % at 32 to 128 rows.)
constexpr Blocking kTileBlocking = {.rows = 256, .panels = 32, .k = 768, .tasks_per_thread = 2};
constexpr int64_t kTileSide = 16;
constexpr int64_t kTileRowsAtOnce = 32;  // of x, beside which each weight is read once

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where a chunk of the rows begins: at multiples of 16, which suit rows in registers (12) and in tiles (16).
int64_t RowBegin(int64_t rows, int64_t chunk, int64_t chunks) {
  return std::min(rows, CeilDiv(rows * chunk / chunks, 16) * 16);
}

// One product, as the inner loop wants it.
struct Product {
  MatMulTile whole;  // all rows, all panels, all of K
  void (*multiply)(const MatMulTile&);
  int64_t bytes_per_k;  // of a panel
  Blocking blocking;
  int64_t x_block;  // elements of x from one block of K to the next
  int64_t panels_per_tile;
  bool rows_in_registers;  // all of them at once: each weight is read once
};

// Panels [panel_begin, panel_end) for rows [row_begin, row_end), by worker `worker`.
void RunTask(Context& context, int worker, const Product& p, int64_t row_begin, int64_t row_end, int64_t panel_begin,
             int64_t panel_end) {
  const MatMulTile& whole = p.whole;
  const int64_t block_k = p.blocking.k;
  const int64_t panel_sums = CeilDiv(row_end - row_begin, kTileSide) * kTileSide * kPanelColumns;
  float* sums = nullptr;
  if (whole.x_tile_rows > 0 && whole.k > block_k) {
    sums = static_cast<float*>(context.Scratch(worker, (panel_end - panel_begin) * panel_sums * sizeof(float)));
  }
  for (int64_t k = 0; k == 0 || k < whole.k; k += block_k) {
    const bool last = k + block_k >= whole.k;
    MatMulTile tile = whole;
    tile.k = std::min(block_k, whole.k - k);
    tile.x = whole.x + row_begin * whole.x_stride + k / block_k * p.x_block;
    tile.rows = row_end - row_begin;
    tile.accumulate = k > 0;
    tile.is_last = last;
    tile.round = last ? whole.round : Format::kF32;
    for (int64_t panel = panel_begin; panel < panel_end; panel += p.panels_per_tile) {
      tile.panels = std::min(p.panels_per_tile, panel_end - panel);
      tile.sums = sums != nullptr ? sums + (panel - panel_begin) * panel_sums : nullptr;
      tile.w = whole.w + panel * whole.panel_bytes + k * p.bytes_per_k;
      tile.y = whole.y + row_begin * whole.y_stride + panel * kPanelColumns;
      tile.columns = std::min(tile.panels * kPanelColumns, whole.columns - panel * kPanelColumns);
      tile.bias = last && whole.bias != nullptr ? whole.bias + panel * kPanelColumns : nullptr;
      if (!p.rows_in_registers) {
        tile.next = panel + p.panels_per_tile < panel_end ? tile.w + p.panels_per_tile * whole.panel_bytes : tile.w;
        tile.next_bytes = tile.k * p.bytes_per_k;
        tile.next_panel_bytes = whole.panel_bytes;
      }
      p.multiply(tile);
    }
  }
}

// Tasks are panel groups times row chunks. With one chunk there are several groups per thread, so that a thread that is
// held up elsewhere lags little. With several, the groups of a chunk follow each other: its rows stay in the L2 cache
// while the weights, fetched ahead, stream by (the other order cost 10 % at 512 rows).
void RunTasks(Context& context, const Product& p) {
  const int64_t rows = p.whole.rows, panels = p.whole.panels;
  const int64_t chunks = CeilDiv(rows, p.blocking.rows), least_groups = CeilDiv(panels, p.blocking.panels);
  const int64_t shares =
      std::min<int64_t>(CeilDiv(panels, 2), context.threads().num_threads() * p.blocking.tasks_per_thread);
  const int64_t groups = chunks == 1 ? (p.rows_in_registers ? shares : std::max(shares, least_groups)) : least_groups;
  context.threads().ParallelFor(chunks * groups, [&](int64_t task, int worker) {
    const int64_t chunk = task / groups, group = task % groups;
    RunTask(context, worker, p, RowBegin(rows, chunk, chunks), RowBegin(rows, chunk + 1, chunks),
            panels * group / groups, panels * (group + 1) / groups);
  });
}

// Replaces x by bf16 pairs along K (context's shared scratch) for the dot product that multiplies such pairs.
void UseBf16Pairs(Context& context, Product& p) {
  const Kernels& kernels = context.cpu_kernels();
  const MatMulTile x = p.whole;
  const int64_t pairs = CeilDiv(x.k, 2);
  p.whole.k = pairs;
  p.bytes_per_k *= 2;
  p.multiply = kernels.multiply_bf16_pairs;
  if (!kernels.tiled_pairs) {
    uint32_t* const packed = static_cast<uint32_t*>(context.SharedScratch(x.rows * pairs * sizeof(uint32_t)));
    ParallelRows(context, x.rows, x.k, [&](int64_t row) {
      kernels.pack_bf16_pairs(x.x + row * x.x_stride, x.k, packed + row * pairs, kTileSide);
    });
    p.whole.x = reinterpret_cast<const float*>(packed);
    p.whole.x_stride = pairs;
    return;
  }
  // A block of K after the other; in it, row after row of tiles.
  p.rows_in_registers = x.rows <= kTileRowsAtOnce;
  p.blocking = kTileBlocking;
  if (x.rows <= kTileSide) p.blocking.tasks_per_thread = kVectorBlocking.tasks_per_thread;
  const int64_t padded = std::max<int64_t>(CeilDiv(pairs, kTileSide), 1) * kTileSide;
  p.blocking.k = p.rows_in_registers ? padded : std::min(p.blocking.k, padded);
  const int64_t block_k = p.blocking.k, blocks = CeilDiv(pairs, block_k);
  p.panels_per_tile = p.rows_in_registers ? x.panels : 2;
  const int64_t tile_rows = std::clamp<int64_t>(x.rows, 1, kTileSide);
  p.x_block = CeilDiv(x.rows, tile_rows) * tile_rows * block_k;
  uint32_t* const packed = static_cast<uint32_t*>(context.SharedScratch(blocks * p.x_block * sizeof(uint32_t)));
  ParallelRows(context, x.rows, x.k, [&](int64_t row) {
    uint32_t* to = packed + row / tile_rows * tile_rows * block_k + row % tile_rows * kTileSide;
    for (int64_t k = 0; k < x.k; k += 2 * block_k, to += p.x_block) {
      kernels.pack_bf16_pairs(x.x + row * x.x_stride + k, std::min(2 * block_k, x.k - k), to, tile_rows * kTileSide);
    }
  });
  p.whole.x = reinterpret_cast<const float*>(packed);
  p.whole.x_stride = block_k;
  p.whole.x_tile_rows = tile_rows;
}

// Replaces x by its E4M3 numbers, held in float32, and returns the scales of its rows (both in the context's shared
// scratch).
const float* UseFloat8(Context& context, Product& p) {
  const MatMulTile x = p.whole;
  float* const scales = static_cast<float*>(context.SharedScratch((x.rows + x.rows * x.k) * sizeof(float)));
  float* const rounded = scales + x.rows;
  ParallelRows(context, x.rows, x.k, [&](int64_t row) {
    const float* const from = x.x + row * x.x_stride;
    float* const to = rounded + row * x.k;
    const Float8Scale scale = Float8ScaleFor(MaxMagnitude(from, x.k));
    for (int64_t k = 0; k < x.k; ++k) to[k] = RoundToFloat8E4M3(from[k] * scale.inverse);
    scales[row] = scale.scale;
  });
  p.whole.x = rounded;
  p.whole.x_stride = x.k;
  return scales;
}

// What a product of rows with scales leaves to be done. row_scales: of x; or none.
void ScaleRows(Context& context, const Tensor& y, const float* row_scales, const float* column_scales,
               const float* bias, Format round) {
  const int64_t N = y.dim(1);
  ParallelRows(context, y.dim(0), N, [&](int64_t row) {
    float* const to = y.data<float>() + row * y.row_stride();
    const float scale = row_scales != nullptr ? row_scales[row] : 1.0f;
    for (int64_t n = 0; n < N; ++n) to[n] = to[n] * column_scales[n] * scale;
    for (int64_t n = 0; bias != nullptr && n < N; ++n) to[n] += bias[n];
    if (round != Format::kF32) context.cpu_kernels().round(to, N, round);
  });
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
  p.whole.bias = options.bias.raw() != nullptr ? options.bias.data<float>() : nullptr;
  p.whole.round = options.round_output ? ActivationFormat(context) : Format::kF32;
  p.multiply = kernels.multiply[static_cast<int>(format)];
  p.bytes_per_k = kPanelColumns * FormatBytes(format);
  p.rows_in_registers = p.whole.rows <= kernels.max_rows;
  p.blocking = kVectorBlocking;
  if (p.rows_in_registers) p.blocking.k = std::max<int64_t>(p.whole.k, 1);
  p.x_block = p.blocking.k;
  p.panels_per_tile = p.rows_in_registers ? p.whole.panels : kernels.panels_at_once;
  if (format == Format::kBf16 && kernels.multiply_bf16_pairs != nullptr &&
      context.activation_dtype() == DType::kBFloat16) {
    UseBf16Pairs(context, p);
  }
  const float* const bias = p.whole.bias;
  const Format round = p.whole.round;
  const float* const row_scales = format == Format::kF8 ? UseFloat8(context, p) : nullptr;
  if (w.scales() != nullptr) {  // before the bias and the rounding
    p.whole.bias = nullptr;
    p.whole.round = Format::kF32;
  }
  RunTasks(context, p);
  if (w.scales() != nullptr) ScaleRows(context, y, row_scales, w.scales(), bias, round);
}

}  // namespace cairn::cpu
