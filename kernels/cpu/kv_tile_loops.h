// Reading a tile of the paged cache: where its slots lie, and K and V as float32 in the layout of weight panels.
// Included once by each instruction set's file.
#ifndef CAIRN_KERNELS_CPU_KV_TILE_LOOPS_H_
#define CAIRN_KERNELS_CPU_KV_TILE_LOOPS_H_

#include "kernels/cpu/matmul_loops.h"

namespace cairn::cpu {
namespace {

constexpr int kTile = kAttentionTileSlots;

int64_t ElementBytes(Format format) { return format == Format::kF32 ? 4 : format == Format::kF8 ? 1 : 2; }

// Where the slots of the tile from `slot` on lie; those past the end point at the last one.
struct SlotRows {
  const uint8_t* k[kTile];
  const uint8_t* v[kTile];
  int32_t position[kTile];  // filled with a window only
  int32_t count;
};

void FindRows(const AttentionTile& t, int32_t slot, SlotRows& rows) {
  const int64_t row_bytes = t.head_dim * ElementBytes(t.format);
  rows.count = t.slot_end - slot < kTile ? t.slot_end - slot : kTile;
  int32_t i = 0;
  while (i < rows.count) {
    const int32_t index = (slot + i) / t.block_size;
    int32_t in_block = (slot + i) % t.block_size;
    const int64_t block = t.block_table[index] * t.block_bytes;
    for (; in_block < t.block_size && i < rows.count; ++in_block, ++i) {
      rows.k[i] = t.k + block + in_block * row_bytes;
      rows.v[i] = t.v + block + in_block * row_bytes;
      if (t.window > 0) rows.position[i] = reinterpret_cast<const int32_t*>(t.positions + block)[in_block];
    }
  }
  for (; i < kTile; ++i) {
    rows.k[i] = rows.k[rows.count - 1];
    rows.v[i] = rows.v[rows.count - 1];
  }
}

// Rows to columns of an 8 x 8 block.
CAIRN_SIMD void Transpose8x8(__m256 (&r)[8]) {
  __m256 a[8], b[8];
  CAIRN_UNROLL for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  CAIRN_UNROLL for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
  CAIRN_UNROLL for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

CAIRN_SIMD F32x16 LoadOf16(Format format, const uint8_t* row, int64_t at) {
  if (format == Format::kF8) return LoadF8(row + at);
  if (format == Format::kBf16) return LoadBf16(reinterpret_cast<const uint16_t*>(row) + at);
  if (format == Format::kF16) return LoadF16(reinterpret_cast<const uint16_t*>(row) + at);
  return Load(reinterpret_cast<const float*>(row) + at);
}

CAIRN_SIMD __m256 LoadOf8(Format format, const uint8_t* row, int64_t at) {
  if (format == Format::kF8) return LoadF8Of8(row + at);
  if (format == Format::kBf16) return LoadBf16Of8(reinterpret_cast<const uint16_t*>(row) + at);
  if (format == Format::kF16) return LoadF16Of8(reinterpret_cast<const uint16_t*>(row) + at);
  return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + at);
}

float LoadOne(Format format, const uint8_t* row, int64_t at) {
  if (format == Format::kF32) return reinterpret_cast<const float*>(row)[at];
  if (format == Format::kF8) {
    uint8_t codes[8] = {row[at]};
    return _mm256_cvtss_f32(LoadF8Of8(codes));
  }
  uint16_t first[8] = {reinterpret_cast<const uint16_t*>(row)[at]};
  const __m256 wide = format == Format::kBf16 ? LoadBf16Of8(first) : LoadF16Of8(first);
  return _mm256_cvtss_f32(wide);
}

// Eight slots, dimensions [at, at + 8), to panel[at ..][lane].
template <Format F>
CAIRN_SIMD void TransposeKeys8(const uint8_t* const* rows, int64_t at, float* panel) {
  __m256 r[8];
  CAIRN_UNROLL for (int i = 0; i < 8; ++i) r[i] = LoadOf8(F, rows[i], at);
  Transpose8x8(r);
  CAIRN_UNROLL for (int i = 0; i < 8; ++i) _mm256_storeu_ps(panel + (at + i) * kLanes, r[i]);
}

// The same for sixteen bf16 dimensions: pairs are moved together, then split.
CAIRN_SIMD void TransposeKeyPairs8(const uint8_t* const* rows, int64_t at, float* panel) {
  __m256 r[8];
  CAIRN_UNROLL for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows[i] + 2 * at));
  Transpose8x8(r);
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  CAIRN_UNROLL for (int i = 0; i < 8; ++i) {
    const __m256i pairs = _mm256_castps_si256(r[i]);
    float* to = panel + (at + 2 * i) * kLanes;
    _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)));
    _mm256_storeu_ps(to + kLanes, _mm256_castsi256_ps(_mm256_and_si256(pairs, high)));
  }
}

// Rows to columns of a 16 x 16 block of bytes.
CAIRN_SIMD void Transpose16x16(__m128i (&r)[16]) {
  // Four times: row i and row i + 8 mixed byte by byte become rows 2i and 2i + 1.
  CAIRN_UNROLL for (int turn = 0; turn < 4; ++turn) {
    __m128i mixed[16];
    CAIRN_UNROLL for (int i = 0; i < 8; ++i) {
      mixed[2 * i] = _mm_unpacklo_epi8(r[i], r[i + 8]);
      mixed[2 * i + 1] = _mm_unpackhi_epi8(r[i], r[i + 8]);
    }
    CAIRN_UNROLL for (int i = 0; i < 16; ++i) r[i] = mixed[i];
  }
}

// Sixteen slots of E4M3: codes are moved, a quarter of the bytes of what they become.
CAIRN_SIMD void TransposeKeyCodes16(const uint8_t* const* rows, int64_t at, float* panel) {
  __m128i r[16];
  CAIRN_UNROLL for (int i = 0; i < 16; ++i) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + at));
  Transpose16x16(r);
  CAIRN_UNROLL for (int i = 0; i < 16; ++i) Store(panel + (at + i) * kLanes, WidenF8(r[i]));
}

void WidenKeyCodes(const uint8_t* const* rows, int count, int64_t d, float* k) {
  for (int s = 0; s < count; s += kLanes) {
    float* panel = k + s * d;
    int64_t at = 0;
    for (; at + kLanes <= d; at += kLanes) TransposeKeyCodes16(rows + s, at, panel);
    for (; at < d; ++at) {
      for (int lane = 0; lane < kLanes; ++lane) panel[at * kLanes + lane] = LoadOne(Format::kF8, rows[s + lane], at);
    }
  }
}

// Rows [0, count), d elements each, transposed to panels [count / 16][d][16]; count is rounded up to a multiple of 8.
template <Format F>
void WidenKeys(const uint8_t* const* rows, int count, int64_t d, float* k) {
  for (int s = 0; s < count; s += 8) {
    float* panel = k + s / kLanes * kLanes * d + s % kLanes;
    int64_t at = 0;
    if constexpr (F == Format::kBf16) {
      for (; at + 16 <= d; at += 16) TransposeKeyPairs8(rows + s, at, panel);
    }
    for (; at + 8 <= d; at += 8) TransposeKeys8<F>(rows + s, at, panel);
    for (; at < d; ++at) {
      for (int lane = 0; lane < 8; ++lane) panel[at * kLanes + lane] = LoadOne(F, rows[s + lane], at);
    }
  }
}

// V of the tile to [padded d / 16][kTile][16].
template <Format F>
void WidenValues(const SlotRows& rows, int64_t d, float* v) {
  for (int32_t s = 0; s < rows.count; ++s) {
    float* to = v + s * kLanes;
    int64_t at = 0;
    for (; at + 8 <= d; at += 8) {
      _mm256_storeu_ps(to + at / kLanes * kLanes * kTile + at % kLanes, LoadOf8(F, rows.v[s], at));
    }
    for (; at < d; ++at) to[at / kLanes * kLanes * kTile + at % kLanes] = LoadOne(F, rows.v[s], at);
  }
}

void WidenKeys(Format format, const uint8_t* const* rows, int count, int64_t d, float* k) {
  if (format == Format::kF8) return WidenKeyCodes(rows, count, d, k);  // rounds up to a multiple of 16
  if (format == Format::kF32) return WidenKeys<Format::kF32>(rows, count, d, k);
  if (format == Format::kBf16) return WidenKeys<Format::kBf16>(rows, count, d, k);
  return WidenKeys<Format::kF16>(rows, count, d, k);
}

// V of the tile as rows of float32, and `rows` to them: [kTile][d], for d a multiple of 16.
void WidenValueRows(Format format, SlotRows& rows, int64_t d, float* v) {
  for (int32_t s = 0; s < rows.count; ++s) {
    for (int64_t at = 0; at < d; at += kLanes) Store(v + s * d + at, LoadOf16(format, rows.v[s], at));
    rows.v[s] = reinterpret_cast<const uint8_t*>(v + s * d);
  }
}

void WidenValues(Format format, const SlotRows& rows, int64_t d, float* v) {
  if (format == Format::kF8) return WidenValues<Format::kF8>(rows, d, v);
  if (format == Format::kF32) return WidenValues<Format::kF32>(rows, d, v);
  if (format == Format::kBf16) return WidenValues<Format::kBf16>(rows, d, v);
  return WidenValues<Format::kF16>(rows, d, v);
}

// Starts fetching the tile's K and V: blocks lie scattered, and the hardware sees each one's few lines too late.
void FetchTile(const SlotRows& rows, int64_t row_bytes) {
  for (int i = 0; i < rows.count; ++i) {
    for (int64_t at = 0; at < row_bytes; at += 64) {
      __builtin_prefetch(rows.k[i] + at);
      __builtin_prefetch(rows.v[i] + at);
    }
  }
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_KV_TILE_LOOPS_H_
