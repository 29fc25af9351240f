// The loops of compression's scores over the keys of one KV head. Included once by each instruction set's file.
//
// Products of keys with queries are the matmul loop over keys transposed to panels, so a number is one chain of fused
// multiply-adds over head_dim, whatever it is computed together with. Those of keys with each other too where they
// matter to the last bit: only whether they are above the threshold is asked, which products of 16-bit integers tell of
// nearly all.
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

void AddScaledRow(const float* x, float factor, int64_t n, float* y) {
  const F32x16 scale = Set(factor);
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        StoreUpTo(y + i, lanes, Add(LoadUpTo(y + i, lanes), Mul(LoadUpTo(x + i, lanes), scale)));
      });
}

void MaxRow(const float* x, int64_t n, float* y) {
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        StoreUpTo(y + i, lanes, Max(LoadUpTo(x + i, lanes), LoadUpTo(y + i, lanes)));
      });
}

// The products of two rows, to be summed. Over whole vectors: rows of units are padded with zeros.
CAIRN_SIMD F32x16 Products(const float* x, const float* y, int64_t padded) {
  F32x16 even = Mul(Load(x), Load(y)), odd = Zero();
  int64_t i = kLanes;
  for (; i + 2 * kLanes <= padded; i += 2 * kLanes) {
    odd = Fma(Load(x + i), Load(y + i), odd);
    even = Fma(Load(x + i + kLanes), Load(y + i + kLanes), even);
  }
  if (i < padded) odd = Fma(Load(x + i), Load(y + i), odd);
  return Add(even, odd);
}

// SumOf8 of each, in its order.
CAIRN_SIMD __m256 SumsOf8(const __m256 (&a)[8]) {
  __m256 four[4], two[2];
  CAIRN_UNROLL for (int i = 0; i < 4; ++i) {  // 2i | 2i + 1
    four[i] = _mm256_add_ps(_mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x20),
                            _mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x31));
  }
  CAIRN_UNROLL for (int i = 0; i < 2; ++i) {  // 4i, 4i + 2 | 4i + 1, 4i + 3
    two[i] = _mm256_add_ps(_mm256_shuffle_ps(four[2 * i], four[2 * i + 1], 0x44),
                           _mm256_shuffle_ps(four[2 * i], four[2 * i + 1], 0xee));
  }
  const __m256 one = _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
  return _mm256_permutevar8x32_ps(one, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// out[i] = x(i) . y(i), i < count.
template <typename X, typename Y>
CAIRN_SIMD void Dots(int64_t count, int64_t padded, const X& x, const Y& y, float* out) {
  int64_t s = 0;
  for (; s + 8 <= count; s += 8) {
    __m256 halves[8];
    CAIRN_UNROLL for (int i = 0; i < 8; ++i) halves[i] = AddHalves(Products(x(s + i), y(s + i), padded));
    _mm256_storeu_ps(out + s, SumsOf8(halves));
  }
  for (; s < count; ++s) out[s] = SumOf(Products(x(s), y(s), padded));
}

// The key as float32, then zeros.
template <Format F>
CAIRN_SIMD void WidenKey(const uint8_t* key, int64_t d, int64_t padded, float* unit) {
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) Store(unit + i, LoadOf16(F, key, i));
  if (i == padded) return;
  const bool half = i + 8 <= d;
  Store(unit + i, half ? ZeroExtend(LoadOf8(F, key, i)) : Zero());
  if (half) i += 8;
  for (; i < d; ++i) unit[i] = LoadOne(F, key, i);
}

template <Format F>
void UnitKeys(const KeyTile& t, int64_t padded, float* units, float* squares, float* sum, int16_t* rounded) {
  const uint8_t* keys[kKeyTileSlots];
  const int count = FindKeys(t, keys);
  for (int s = 0; s < count; ++s) WidenKey<F>(keys[s], t.head_dim, padded, units + s * padded);
  const auto key = [&](int64_t s) __attribute__((always_inline)) { return units + s * padded; };
  Dots(count, padded, key, key, squares);
  __builtin_memset(units + count * padded, 0, (kKeyTileSlots - count) * padded * sizeof(float));
  __builtin_memset(squares + count, 0, (kKeyTileSlots - count) * sizeof(float));
  float factors[kKeyTileSlots];
  for (int s = 0; s < kKeyTileSlots; s += kLanes) {
    const F32x16 square = Load(squares + s), factor = Div(Set(1.0f), Add(Sqrt(square), Set(1e-8f)));
    Store(factors + s, factor);
    // Keys whose squares overflow become zero.
    const uint32_t finite = MaskGreater(Set(__builtin_inff()), square);
    Store(squares + s, Where(finite, Mul(square, Mul(factor, factor)), Zero()));
  }
  for (int64_t i = 0; i < padded; i += kLanes) {
    F32x16 total = Zero();
    for (int s = 0; s < count; ++s) {
      float* unit = units + s * padded + i;
      const F32x16 u = Mul(Load(unit), Broadcast(factors + s));
      Store(unit, u);
      if (rounded != nullptr) StoreI16(rounded + s * padded + i, Mul(u, Set(kRoundedOne)));
      total = Add(total, u);
    }
    Store(sum + i, total);
  }
  if (rounded != nullptr) {
    __builtin_memset(rounded + count * padded, 0, (kKeyTileSlots - count) * padded * sizeof(int16_t));
  }
}

void UnitKeys(const KeyTile& t, int64_t padded, float* units, float* squares, float* sum, int16_t* rounded) {
  if (t.format == Format::kF32) return UnitKeys<Format::kF32>(t, padded, units, squares, sum, rounded);
  if (t.format == Format::kBf16) return UnitKeys<Format::kBf16>(t, padded, units, squares, sum, rounded);
  if (t.format == Format::kF8) return UnitKeys<Format::kF8>(t, padded, units, squares, sum, rounded);
  return UnitKeys<Format::kF16>(t, padded, units, squares, sum, rounded);
}

void UnitDots(const float* units, int64_t padded, int64_t count, const float* x, float* out) {
  Dots(
      count, padded, [&](int64_t s) __attribute__((always_inline)) { return units + s * padded; },
      [&](int64_t) __attribute__((always_inline)) { return x; }, out);
}

void PairDots(const float* units, int64_t padded, int64_t begin, int64_t end, const int32_t* other, float* out) {
  Dots(
      end - begin, padded, [&](int64_t s) __attribute__((always_inline)) { return units + (begin + s) * padded; },
      [&](int64_t s)
          __attribute__((always_inline)) { return units + (other[begin + s] < 0 ? 0 : other[begin + s]) * padded; },
      out + begin);
  for (int64_t s = begin; s < end; ++s) out[s] = other[s] < 0 || other[s] == s ? 0 : out[s];
}

void KeyPanels(const int16_t* rounded, int64_t padded, int64_t d, uint32_t* panels) {
  const uint8_t* rows[kKeyTileSlots];
  for (int i = 0; i < kKeyTileSlots; ++i) rows[i] = reinterpret_cast<const uint8_t*>(rounded + i * padded);
  // Pairs are moved as what has their size.
  WidenKeys<Format::kF32>(rows, kKeyTileSlots, (d + 1) / 2, reinterpret_cast<float*>(panels));
}

// Rows and panels whose products are in registers together, and the columns of these panels.
constexpr int kSimilarRows = kMaxAccumulators >= 16 ? 8 : 6, kSimilarPanels = kMaxAccumulators >= 16 ? 2 : 1;
constexpr int kSimilarColumns = kSimilarPanels * kLanes;

// Columns [first, first + kSimilarColumns) of the panels, as bits.
struct SimilarColumns {
  int first;
  uint32_t valid;
  int before;     // with `above`: the row before column `first`; else no row is behind it
  uint32_t open;  // have not found the last row that is similar

  SimilarColumns(int first, uint64_t columns, uint64_t valid, bool above)
      : first(first),
        valid(static_cast<uint32_t>(valid >> first & kAll)),
        before(above ? first - 1 : kKeyTileSlots),
        open(static_cast<uint32_t>(columns >> first & kAll)) {}

  // The rows that may be similar to one of them: with `above` those before the last.
  uint64_t PossibleRows() const {
    if (valid == 0) return 0;
    return before == kKeyTileSlots ? ~uint64_t{0} : ~uint64_t{0} >> (kKeyTileSlots - before - kSimilarColumns);
  }
  // What such a row may be similar to.
  CAIRN_SIMD uint32_t Of(int row) const {
    const int skipped = row - before;
    return valid & ~0u << (skipped > 0 ? skipped : 0);
  }

  static constexpr uint64_t kAll = (uint64_t{1} << kSimilarColumns) - 1;
};

CAIRN_SIMD int LastBit(uint64_t bits) { return 63 ^ __builtin_clzll(bits); }

// The chain of FMAs.
CAIRN_SIMD bool IsSimilar(const KeyPairs& t, int row, int column) {
  const float *x = t.row_units + row * t.padded, *y = t.column_units + column * t.padded;
  float product = 0;
  for (int64_t i = 0; i < t.head_dim; ++i) product = __builtin_fmaf(x[i], y[i], product);
  return product > t.threshold;
}

// Of the columns that a row may be similar to, those that it is, as far as anyone wants to know.
__attribute__((noinline)) uint32_t WithoutDoubt(const KeyPairs& t, int row, const SimilarColumns& columns,
                                                uint32_t similar, uint32_t doubtful) {
  uint32_t sure = similar & ~doubtful;
  for (uint32_t left = similar & doubtful; left != 0;) {
    const int column = LastBit(left);
    left &= ~(1u << column);
    const bool matters = (columns.open >> column & 1) != 0 || sure >> column == 0;
    if (matters && IsSimilar(t, row, columns.first + column)) sure |= 1u << column;
  }
  return sure;
}

// The last R of `rows_left` (if there are fewer, the first of them again and again), which are taken out of it. Their
// products become bits without being stored. Returns the rows that have one.
template <int R>
uint64_t SimilarBlock(const KeyPairs& t, uint64_t* rows_left, SimilarColumns* columns, uint64_t* masks) {
  constexpr int P = kSimilarPanels;
  const uint32_t* x[R];
  U32x16 sums[R][P];
  int row[R], last = 0;
  uint64_t left = *rows_left;
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    if (left != 0) last = LastBit(left);
    left &= ~(uint64_t{1} << last);
    row[r] = last;
    x[r] = reinterpret_cast<const uint32_t*>(t.rows + row[r] * t.padded);
    CAIRN_UNROLL for (int p = 0; p < P; ++p) sums[r][p] = SetU32(static_cast<uint32_t>(-t.first_similar));
  }
  *rows_left = left;
  const int64_t pairs = (t.head_dim + 1) / 2;
  const uint32_t* w = t.columns + columns->first * pairs;
#pragma GCC unroll 2
  for (int64_t k = 0; k < pairs; ++k, w += kLanes) {
    U32x16 wk[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) wk[p] = LoadU32(w + p * kLanes * pairs);
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      const U32x16 xk = BroadcastU32(x[r] + k);
      CAIRN_UNROLL for (int p = 0; p < P; ++p) sums[r][p] = DotI16(sums[r][p], xk, wk[p]);
    }
  }
  const U32x16 doubt = SetU32(t.doubt);
  U32x16 closest = sums[0][0];
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    CAIRN_UNROLL for (int p = 0; p < P; ++p) closest = MinU32(closest, sums[r][p]);
  }
  const bool has_doubt = MaskAtMostU32(closest, doubt) != 0;
  uint64_t found_rows = 0;
  uint32_t found_columns = 0;
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    uint32_t negative = 0;
    CAIRN_UNROLL for (int p = 0; p < P; ++p) negative |= MaskNegative(sums[r][p]) << (p * kLanes);
    uint32_t similar = ~negative & columns->Of(row[r]);
    if (__builtin_expect(has_doubt, false)) {
      uint32_t doubtful = 0;
      CAIRN_UNROLL for (int p = 0; p < P; ++p) doubtful |= MaskAtMostU32(sums[r][p], doubt) << (p * kLanes);
      similar = WithoutDoubt(t, row[r], *columns, similar, doubtful);
    }
    masks[row[r]] |= static_cast<uint64_t>(similar) << columns->first;
    found_rows |= static_cast<uint64_t>(similar != 0) << row[r];
    found_columns |= similar;
  }
  columns->open &= ~found_columns;
  return found_rows;
}

// The last columns and the last rows first: a row or column that has found its last one needs no more, and the rows
// that are left are looked at side by side.
uint64_t SimilarKeys(const KeyPairs& t, uint64_t* masks) {
  __builtin_memset(masks, 0, kKeyTileSlots * sizeof(uint64_t));
  uint64_t rows = t.searching_rows, found = 0;
  for (int first = kKeyTileSlots - kSimilarColumns; first >= 0; first -= kSimilarColumns) {
    SimilarColumns some(first, t.searching_columns, t.valid, t.above);
    uint64_t left = some.PossibleRows();
    while ((left &= some.open != 0 ? ~uint64_t{0} : rows) != 0) {
      const bool is_few = __builtin_popcountll(left) <= kSimilarRows / 2;
      const uint64_t block = is_few ? SimilarBlock<kSimilarRows / 2>(t, &left, &some, masks)
                                    : SimilarBlock<kSimilarRows>(t, &left, &some, masks);
      rows &= ~block;
      found |= block;
    }
  }
  return found;
}

uint64_t Below(const int32_t* values, int32_t bound) {
  uint64_t mask = 0;
  for (int i = 0; i < kKeyTileSlots; i += kLanes) {
    mask |= static_cast<uint64_t>(MaskAtLeast(values + i, bound) ^ 0xffff) << i;
  }
  return mask;
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_SCORE_LOOPS_H_
