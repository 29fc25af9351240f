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

// One row's pairs, 16 to a tile.
void PackTileRow(const float* x, int64_t k, uint32_t* pairs, int64_t stride) {
  for (int64_t i = 0; i < k; i += 2 * kTilePairs, pairs += stride) {
    const int64_t count = k - i < 2 * kTilePairs ? k - i : 2 * kTilePairs;
    if (count < 2 * kTilePairs) __builtin_memset(pairs, 0, kTileBytes);
    PackBf16Pairs(x + i, count, pairs, kTilePairs);
  }
}

struct SumTile {
  alignas(64) float at[kTileRows][kPanelColumns];
};

// Up to 16 rows and a panel of y, and the tile of sums that goes there.
struct Place {
  const MatMulTile* t;
  int64_t row, rows, panel;
  float* sums;  // [16, 16]

  CAIRN_SIMD int64_t columns() const { return t->columns - panel * kPanelColumns; }
  CAIRN_SIMD float* y() const { return t->y + row * t->y_stride + panel * kPanelColumns; }
  CAIRN_SIMD int64_t y_bytes() const { return t->y_stride * static_cast<int64_t>(sizeof(float)); }  // a row's
  // Whether y has room for a tile of plain floats.
  CAIRN_SIMD bool is_written_to_y() const {
    return t->is_last && columns() >= kPanelColumns && t->bias == nullptr && t->round == Format::kF32;
  }
};

CAIRN_SIMD Place PlaceAt(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, SumTile& unless_kept) {
  const int64_t row_tiles = (t.rows + kTileRows - 1) / kTileRows;
  float* const kept = t.sums + (panel * row_tiles + row / kTileRows) * kTileRows * kPanelColumns;
  return {&t, row, rows, panel, t.sums != nullptr ? kept : unless_kept.at[0]};
}

// Macros, since the number of a tile is spelt into the instruction.
#define CAIRN_TILE_READ(tile, place)               \
  do {                                             \
    if ((place).t->accumulate) {                   \
      _tile_loadd(tile, (place).sums, kTileBytes); \
    } else {                                       \
      _tile_zero(tile);                            \
    }                                              \
  } while (false)
#define CAIRN_TILE_WRITE(tile, place)                     \
  do {                                                    \
    if ((place).is_written_to_y()) {                      \
      _tile_stored(tile, (place).y(), (place).y_bytes()); \
    } else {                                              \
      _tile_stored(tile, (place).sums, kTileBytes);       \
    }                                                     \
  } while (false)

// What is_written_to_y has left to do at the end of K.
CAIRN_SIMD void Finish(const Place& place) {
  const MatMulTile& t = *place.t;
  if (!t.is_last || place.is_written_to_y()) return;
  const F32x16 bias = t.bias != nullptr ? LoadUpTo(t.bias + place.panel * kPanelColumns, place.columns()) : Zero();
  for (int64_t r = 0; r < place.rows; ++r) {
    const F32x16 sum = Load(place.sums + r * kPanelColumns);
    StoreUpTo(place.y() + r * t.y_stride, place.columns(), RoundTo(t.round, t.bias != nullptr ? Add(sum, bias) : sum));
  }
}

// The last pairs of panels, filled up with zeros: what follows them in memory could be no number.
struct LastPairs {
  alignas(64) uint32_t w[4][kTilePairs][kPanelColumns];
};

void FillUp(const MatMulTile& t, int64_t panel, int64_t panels, LastPairs& last) {
  const int64_t begin = t.k / kTilePairs * kTilePairs, rest = t.k - begin;
  __builtin_memset(&last, 0, sizeof last);
  for (int64_t p = 0; p < panels; ++p) {
    __builtin_memcpy(last.w[p], t.w + (panel + p) * t.panel_bytes + begin * kTileBytes, rest * kTileBytes);
  }
}

// Weights that are read once are fetched this many tiles ahead: the hardware looks less far.
constexpr int64_t kFetchTiles = 4;

CAIRN_SIMD void FetchTile(const uint8_t* w) {
  CAIRN_UNROLL for (int row = 0; row < kTilePairs; ++row) __builtin_prefetch(w + row * kTileBytes);
}

// What is fetched beside each step along K: `bytes` of each panel, from where `from` stands.
struct Ahead {
  const uint8_t* from = nullptr;
  int64_t panel_bytes = 0;
  int64_t bytes = 0;

  CAIRN_SIMD void Fetch(int64_t panels) {
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t i = 0; i < bytes; i += kTileBytes) __builtin_prefetch(from + p * panel_bytes + i);
    }
    from += bytes;
  }
};

// More than 16 rows against one or two panels.
void MultiplyTallTiles(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, int64_t panels, Ahead ahead) {
  SumTile copies[4];
  const int64_t second_panel = panel + panels - 1, second_row = row + kTileRows, second_rows = rows - kTileRows;
  const Place place[4] = {PlaceAt(t, row, kTileRows, panel, copies[0]),
                          PlaceAt(t, row, kTileRows, second_panel, copies[1]),
                          PlaceAt(t, second_row, second_rows, panel, copies[2]),
                          PlaceAt(t, second_row, second_rows, second_panel, copies[3])};
  MemoryBarrier();
  CAIRN_TILE_READ(0, place[0]);
  CAIRN_TILE_READ(1, place[1]);
  CAIRN_TILE_READ(2, place[2]);
  CAIRN_TILE_READ(3, place[3]);
  const auto step = [&](const void* first, const void* second, const uint8_t* w0, const uint8_t* w1)
      __attribute__((always_inline)) {
    _tile_loadd(4, first, kTileBytes);
    _tile_loadd(6, w0, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, second, kTileBytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, w1, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  };
  const float* first = t.x + row * t.x_stride;
  const float* second = first + kTileRows * t.x_stride;
  const uint8_t* w0 = t.w + panel * t.panel_bytes;
  const uint8_t* w1 = t.w + second_panel * t.panel_bytes;
  int64_t k = 0;
  for (; k + kTilePairs <= t.k; k += kTilePairs) {
    ahead.Fetch(panels);
    step(first + k * kTileRows, second + k * kTileRows, w0 + k * kTileBytes, w1 + k * kTileBytes);
  }
  if (k < t.k) {
    LastPairs last;
    FillUp(t, panel, panels, last);
    MemoryBarrier();
    step(first + k * kTileRows, second + k * kTileRows, reinterpret_cast<const uint8_t*>(last.w),
         reinterpret_cast<const uint8_t*>(last.w[panels - 1]));
  }
  CAIRN_TILE_WRITE(0, place[0]);
  CAIRN_TILE_WRITE(2, place[2]);
  if (panels == 2) {
    CAIRN_TILE_WRITE(1, place[1]);
    CAIRN_TILE_WRITE(3, place[3]);
  }
  MemoryBarrier();
  for (int64_t i = 0; i < 4; i += 3 - panels) Finish(place[i]);
}

// At most 16 rows against one to four panels.
void MultiplyFlatTiles(const MatMulTile& t, int64_t row, int64_t rows, int64_t panel, int64_t panels) {
  SumTile copies[4];
  Place place[4];
  const uint8_t* w[4];
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t p = i < panels ? i : panels - 1;
    place[i] = PlaceAt(t, row, rows, panel + p, copies[i]);
    w[i] = t.w + (panel + p) * t.panel_bytes;
  }
  MemoryBarrier();
  CAIRN_TILE_READ(0, place[0]);
  CAIRN_TILE_READ(1, place[1]);
  CAIRN_TILE_READ(2, place[2]);
  CAIRN_TILE_READ(3, place[3]);
  const auto step = [&](const void* x, const uint8_t* w0, const uint8_t* w1, const uint8_t* w2, const uint8_t* w3)
      __attribute__((always_inline)) {
    _tile_loadd(4, x, kTileBytes);
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
    for (int64_t p = 0; p < panels; ++p) FetchTile(w[p] + at + kFetchTiles * kTilePairs * kTileBytes);
    step(x + k * t.x_tile_rows, w[0] + at, w[1] + at, w[2] + at, w[3] + at);
  }
  if (k < t.k) {
    LastPairs last;
    FillUp(t, panel, panels, last);
    const auto part = [&](int i) { return reinterpret_cast<const uint8_t*>(last.w[i]); };
    MemoryBarrier();
    step(x + k * t.x_tile_rows, part(0), part(1), part(2), part(3));
  }
  CAIRN_TILE_WRITE(0, place[0]);
  if (panels > 1) CAIRN_TILE_WRITE(1, place[1]);
  if (panels > 2) CAIRN_TILE_WRITE(2, place[2]);
  if (panels > 3) CAIRN_TILE_WRITE(3, place[3]);
  MemoryBarrier();
  for (int64_t i = 0; i < panels; ++i) Finish(place[i]);
}

// MatMulTile with bf16 weights; x holds tiles of pairs and k counts pairs.
void MultiplyTiles(const MatMulTile& t) {
  constexpr int64_t kStepBytes = kTilePairs * kTileBytes;
  int64_t configured = 0;
  const int64_t blocks = (t.rows + 2 * kTileRows - 1) / (2 * kTileRows), steps = t.k / kTilePairs;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = block * 2 * kTileRows;
    const int64_t rows = t.rows - row < 2 * kTileRows ? t.rows - row : 2 * kTileRows;
    const bool is_tall = rows > kTileRows;
    if (rows != configured) ConfigureTiles(is_tall ? kTileRows : rows, is_tall ? rows - kTileRows : 0);
    configured = rows;
    const int64_t at_once = is_tall ? 2 : 4;
    for (int64_t panel = 0; panel < t.panels; panel += at_once) {
      const int64_t panels = t.panels - panel < at_once ? t.panels - panel : at_once;
      if (!is_tall) {
        MultiplyFlatTiles(t, row, rows, panel, panels);
        continue;
      }
      // Weights that are read once; else a share of what comes next.
      Ahead ahead = {t.w + panel * t.panel_bytes + kFetchTiles * kStepBytes, t.panel_bytes, kStepBytes};
      if (t.next != nullptr) {
        ahead = {t.next + t.next_bytes * block / blocks + panel * t.next_panel_bytes, t.next_panel_bytes,
                 steps > 0 ? t.next_bytes / (blocks * steps) : 0};
      }
      MultiplyTallTiles(t, row, rows, panel, panels, ahead);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_AMX_LOOPS_H_
