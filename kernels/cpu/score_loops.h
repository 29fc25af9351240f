// The loops of compression's scores over the keys of one KV head. Included once by each instruction set's file.
//
// Products of keys with queries and with each other are the matmul loop over keys transposed to panels, so a number is
// one chain of fused multiply-adds over head_dim, whatever it is computed together with.
#ifndef CAIRN_KERNELS_CPU_SCORE_LOOPS_H_
#define CAIRN_KERNELS_CPU_SCORE_LOOPS_H_

#include "kernels/cpu/kv_tile_loops.h"
#include "kernels/cpu/matmul_loops.h"
#include "kernels/cpu/row_loops.h"

namespace cairn::cpu {
namespace {

// Where the keys of the tile lie; those past the end point at the last one. Returns how many there are.
int FindKeys(const KeyTile& t, const uint8_t* (&keys)[kKeyTileSlots]) {
  const int64_t row_bytes = t.head_dim * ElementBytes(t.format);
  const int count = t.slot_end - t.slot_begin;
  int i = 0;
  while (i < count) {
    const int32_t slot = t.slot_begin + i;
    const uint8_t* block = t.k + t.block_table[slot / t.block_size] * t.block_bytes;
    for (int32_t in_block = slot % t.block_size; in_block < t.block_size && i < count; ++in_block, ++i) {
      keys[i] = block + in_block * row_bytes;
    }
  }
  for (; i < kKeyTileSlots; ++i) keys[i] = keys[count - 1];
  return count;
}

void KeyLogits(const KeyTile& t, const float* q, int64_t vectors, float* logits, int64_t stride, float* scratch) {
  const uint8_t* keys[kKeyTileSlots];
  const int count = FindKeys(t, keys);
  WidenKeys(t.format, keys, count, t.head_dim, scratch);
  MatMulTile product;
  product.x = q;
  product.x_stride = t.head_dim;
  product.rows = vectors;
  product.w = reinterpret_cast<const uint8_t*>(scratch);
  product.panel_bytes = t.head_dim * kLanes * sizeof(float);
  product.panels = (count + kLanes - 1) / kLanes;
  product.k = t.head_dim;
  product.y = logits;
  product.y_stride = stride;
  product.columns = count;
  Multiply<F32Weights>(product);
}

float ExpRow(float* x, int64_t n) {
  F32x16 most = Set(-__builtin_inff());
  const F32x16 least = most;
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 v = LoadUpTo(x + i, lanes);
        most = Max(most, lanes == kLanes ? v : Where((1u << lanes) - 1, v, least));
      });
  const F32x16 max = Set(MaxOf(most));
  F32x16 sum = Zero();
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 e = Exp(Sub(LoadUpTo(x + i, lanes), max));
        StoreUpTo(x + i, lanes, e);
        sum = Add(sum, lanes == kLanes ? e : Where((1u << lanes) - 1, e, Zero()));
      });
  return SumOf(sum);
}

float DotRows(const float* x, const float* y, int64_t n) {
  F32x16 even = Zero(), odd = Zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = Fma(Load(x + i), Load(y + i), even);
    odd = Fma(Load(x + i + kLanes), Load(y + i + kLanes), odd);
  }
  ForLanes(
      n - i, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
        even = Fma(LoadUpTo(x + i + j, lanes), LoadUpTo(y + i + j, lanes), even);
      });
  return SumOf(Add(even, odd));
}

template <Format F>
void UnitKey(const uint8_t* key, int64_t d, float* unit, float* sum) {
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) Store(unit + i, LoadOf16(F, key, i));
  for (; i < d; ++i) unit[i] = LoadOne(F, key, i);
  const F32x16 factor = Set(1.0f / (__builtin_sqrtf(DotRows(unit, unit, d)) + 1e-8f));
  ForLanes(
      d, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 u = Mul(LoadUpTo(unit + j, lanes), factor);
        StoreUpTo(unit + j, lanes, u);
        StoreUpTo(sum + j, lanes, Add(LoadUpTo(sum + j, lanes), u));
      });
}

void UnitKeys(const KeyTile& t, float* units, float* squares, float* sum) {
  const uint8_t* keys[kKeyTileSlots];
  const int64_t d = t.head_dim;
  const int count = FindKeys(t, keys);
  __builtin_memset(sum, 0, d * sizeof(float));
  for (int s = 0; s < count; ++s) {
    float* unit = units + s * d;
    if (t.format == Format::kF32) UnitKey<Format::kF32>(keys[s], d, unit, sum);
    if (t.format == Format::kBf16) UnitKey<Format::kBf16>(keys[s], d, unit, sum);
    if (t.format == Format::kF16) UnitKey<Format::kF16>(keys[s], d, unit, sum);
    squares[s] = DotRows(unit, unit, d);
  }
  __builtin_memset(units + count * d, 0, (kKeyTileSlots - count) * d * sizeof(float));
}

void KeyPanels(const float* units, int64_t d, float* panels) {
  const uint8_t* rows[kKeyTileSlots];
  for (int i = 0; i < kKeyTileSlots; ++i) rows[i] = reinterpret_cast<const uint8_t*>(units + i * d);
  WidenKeys<Format::kF32>(rows, kKeyTileSlots, d, panels);
}

void SimilarKeys(const float* units, const float* panels, int64_t d, float threshold, float* scratch, uint64_t* masks) {
  MatMulTile product;
  product.x = units;
  product.x_stride = d;
  product.rows = kKeyTileSlots;
  product.w = reinterpret_cast<const uint8_t*>(panels);
  product.panel_bytes = d * kLanes * sizeof(float);
  product.panels = kKeyTileSlots / kLanes;
  product.k = d;
  product.y = scratch;
  product.y_stride = kKeyTileSlots;
  product.columns = kKeyTileSlots;
  Multiply<F32Weights>(product);
  const F32x16 bound = Set(threshold);
  for (int r = 0; r < kKeyTileSlots; ++r) {
    uint64_t mask = 0;
    CAIRN_UNROLL for (int p = 0; p < kKeyTileSlots / kLanes; ++p) {
      mask |= static_cast<uint64_t>(MaskGreater(Load(scratch + r * kKeyTileSlots + p * kLanes), bound)) << (p * kLanes);
    }
    masks[r] = mask;
  }
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SCORE_LOOPS_H_
