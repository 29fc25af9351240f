// The product of bf16 pairs on AMX tiles. Included by kernels_avx512_amx.cc.
//
// A panel of weights is what tdpbf16ps reads as its second operand: a row of the tile holds a pair along K of 16
// columns. An output is a chain over ascending tiles of 16 pairs (the last one filled up with zeros), within a tile as
// the instruction sums, so that neither the rows that share a tile nor cuts of K at multiples of 16 pairs change a bit.
#ifndef CAIRN_KERNELS_CPU_AMX_LOOPS_H_
#define CAIRN_KERNELS_CPU_AMX_LOOPS_H_

#include "kernels/cpu/matmul_loops.h"

namespace cairn::cpu {
namespace {

constexpr int kTileRows = 16, kTilePairs = 16, kTileBytes = 64;

// GCC's tile intrinsics do not say that they touch memory.
CAIRN_SIMD void MemoryBarrier() { asm volatile("" ::: "memory"); }

// Tiles 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 panels of w. Sums 0 and 1 belong to the first rows, 2 and 3 to the
// second ones; without second rows, to the first rows and two more panels.
void ConfigureTiles(int64_t first_rows, int64_t second_rows) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) config;
  static_assert(sizeof config == 64);
  __builtin_memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) config.row_bytes[tile] = kTileBytes;
  const uint8_t first = static_cast<uint8_t>(first_rows);
  const uint8_t second = static_cast<uint8_t>(second_rows == 0 ? first_rows : second_rows);
  config.rows[0] = config.rows[1] = config.rows[4] = first;
  config.rows[2] = config.rows[3] = config.rows[5] = second;
  config.rows[6] = config.rows[7] = kTilePairs;
  MemoryBarrier();
  _tile_loadconfig(&config);
}

struct SumTile {
  alignas(64) float at[kTileRows][kPanelColumns];
};

CAIRN_SIMD void LoadSums(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, SumTile& sums) {
  const float* y = t.y + row * t.y_stride + panel * kPanelColumns;
  for (int64_t r = 0; r < rows; ++r) {
    Store(sums.at[r], t.accumulate ? LoadUpTo(y + r * t.y_stride, t.columns - panel * kPanelColumns) : Zero());
  }
}

CAIRN_SIMD void StoreSums(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, const SumTile& sums) {
  const int64_t columns = t.columns - panel * kPanelColumns;
  float* y = t.y + row * t.y_stride + panel * kPanelColumns;
  const F32x16 bias = t.bias != nullptr ? LoadUpTo(t.bias + panel * kPanelColumns, columns) : Zero();
  for (int64_t r = 0; r < rows; ++r) {
    const F32x16 sum = Load(sums.at[r]);
    StoreUpTo(y + r * t.y_stride, columns, RoundTo(t.round, t.bias != nullptr ? Add(sum, bias) : sum));
  }
}

// The last pairs of rows, and of a panel, filled up with zeros.
struct LastPairs {
  alignas(64) uint32_t x[2 * kTileRows][kTilePairs];
  alignas(64) uint32_t w[4][kTilePairs][kPanelColumns];
};

void FillUp(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, int64_t panels, LastPairs& last) {
  const int64_t begin = t.k / kTilePairs * kTilePairs, rest = t.k - begin;
  __builtin_memset(&last, 0, sizeof last);
  for (int64_t r = 0; r < rows; ++r) {
    __builtin_memcpy(last.x[r], t.x + (row + r) * t.x_stride + begin, rest * sizeof(uint32_t));
  }
  for (int64_t p = 0; p < panels; ++p) {
    __builtin_memcpy(last.w[p], t.w + (panel + p) * t.panel_bytes + begin * kTileBytes, rest * kTileBytes);
  }
}

// Weights are read once, faster than the hardware looks ahead.
CAIRN_SIMD void FetchTileAhead(const uint8_t* w) {
  CAIRN_UNROLL for (int row = 0; row < kTilePairs; ++row) {
    __builtin_prefetch(w + 4 * kTilePairs * kTileBytes + row * kTileBytes);
  }
}

// More than 16 rows against one or two panels.
void MultiplyTallTiles(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, int64_t panels) {
  SumTile sums[4];
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t p = i % 2 < panels ? i % 2 : 0;
    LoadSums(t, row + i / 2 * kTileRows, i < 2 ? kTileRows : rows - kTileRows, panel + p, sums[i]);
  }
  MemoryBarrier();
  _tile_loadd(0, sums[0].at, kTileBytes);
  _tile_loadd(1, sums[1].at, kTileBytes);
  _tile_loadd(2, sums[2].at, kTileBytes);
  _tile_loadd(3, sums[3].at, kTileBytes);
  const auto step = [&](const void* first, const void* second, int64_t x_bytes, const uint8_t* w0, const uint8_t* w1)
      __attribute__((always_inline)) {
    _tile_loadd(4, first, x_bytes);
    _tile_loadd(6, w0, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, second, x_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, w1, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  };
  const float* first = t.x + row * t.x_stride;
  const float* second = first + kTileRows * t.x_stride;
  const uint8_t* w0 = t.w + panel * t.panel_bytes;
  const uint8_t* w1 = panels == 2 ? w0 + t.panel_bytes : w0;
  int64_t k = 0;
  for (; k + kTilePairs <= t.k; k += kTilePairs, w0 += kTilePairs * kTileBytes, w1 += kTilePairs * kTileBytes) {
    step(first + k, second + k, t.x_stride * static_cast<int64_t>(sizeof(float)), w0, w1);
  }
  if (k < t.k) {
    LastPairs last;
    FillUp(t, row, rows, panel, panels, last);
    MemoryBarrier();
    step(last.x, last.x[kTileRows], kTileBytes, reinterpret_cast<const uint8_t*>(last.w),
         reinterpret_cast<const uint8_t*>(last.w[panels - 1]));
  }
  _tile_stored(0, sums[0].at, kTileBytes);
  _tile_stored(1, sums[1].at, kTileBytes);
  _tile_stored(2, sums[2].at, kTileBytes);
  _tile_stored(3, sums[3].at, kTileBytes);
  MemoryBarrier();
  for (int64_t i = 0; i < 4; ++i) {
    if (i % 2 >= panels) continue;
    StoreSums(t, row + i / 2 * kTileRows, i < 2 ? kTileRows : rows - kTileRows, panel + i % 2, sums[i]);
  }
}

// At most 16 rows against one to four panels.
void MultiplyFlatTiles(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, int64_t panels) {
  SumTile sums[4];
  const uint8_t* w[4];
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t p = i < panels ? i : panels - 1;
    LoadSums(t, row, rows, panel + p, sums[i]);
    w[i] = t.w + (panel + p) * t.panel_bytes;
  }
  MemoryBarrier();
  _tile_loadd(0, sums[0].at, kTileBytes);
  _tile_loadd(1, sums[1].at, kTileBytes);
  _tile_loadd(2, sums[2].at, kTileBytes);
  _tile_loadd(3, sums[3].at, kTileBytes);
  const auto step = [&](const void* x, int64_t x_bytes, const uint8_t* w0, const uint8_t* w1, const uint8_t* w2,
                        const uint8_t* w3) __attribute__((always_inline)) {
    _tile_loadd(4, x, x_bytes);
    _tile_loadd(6, w0, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    if (panels == 1) return;
    _tile_loadd(7, w1, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    if (panels == 2) return;
    _tile_loadd(6, w2, kTileBytes);
    _tile_dpbf16ps(2, 4, 6);
    if (panels == 3) return;
    _tile_loadd(7, w3, kTileBytes);
    _tile_dpbf16ps(3, 4, 7);
  };
  const float* x = t.x + row * t.x_stride;
  int64_t k = 0;
  for (int64_t at = 0; k + kTilePairs <= t.k; k += kTilePairs, at += kTilePairs * kTileBytes) {
    for (int64_t p = 0; p < panels; ++p) FetchTileAhead(w[p] + at);
    step(x + k, t.x_stride * static_cast<int64_t>(sizeof(float)), w[0] + at, w[1] + at, w[2] + at, w[3] + at);
  }
  if (k < t.k) {
    LastPairs last;
    FillUp(t, row, rows, panel, panels, last);
    const auto part = [&](int i) { return reinterpret_cast<const uint8_t*>(last.w[i]); };
    MemoryBarrier();
    step(last.x, kTileBytes, part(0), part(1), part(2), part(3));
  }
  _tile_stored(0, sums[0].at, kTileBytes);
  _tile_stored(1, sums[1].at, kTileBytes);
  _tile_stored(2, sums[2].at, kTileBytes);
  _tile_stored(3, sums[3].at, kTileBytes);
  MemoryBarrier();
  for (int64_t i = 0; i < panels; ++i) StoreSums(t, row, rows, panel + i, sums[i]);
}

// MatMulTile with bf16 weights; x holds pairs and k counts them.
void MultiplyTiles(const MatMulTile& t) {
  for (int64_t row = 0; row < t.rows; row += 2 * kTileRows) {
    const int64_t rows = t.rows - row < 2 * kTileRows ? t.rows - row : 2 * kTileRows;
    const bool is_tall = rows > kTileRows;
    ConfigureTiles(is_tall ? kTileRows : rows, is_tall ? rows - kTileRows : 0);
    const int64_t at_once = is_tall ? 2 : 4;
    for (int64_t panel = 0; panel < t.panels; panel += at_once) {
      const int64_t panels = t.panels - panel < at_once ? t.panels - panel : at_once;
      if (is_tall) {
        MultiplyTallTiles(t, row, rows, panel, panels);
      } else {
        MultiplyFlatTiles(t, row, rows, panel, panels);
      }
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_AMX_LOOPS_H_
