// The loops of compression's scores over the keys of one KV head. Included once by each instruction set's file.
//
// Products of keys with queries are the matmul loop over keys transposed to panels, so a number is one chain of fused
// multiply-adds over head_dim, whatever it is computed together with. Those of keys with each other too where they
// matter to the last bit: only whether they are above the threshold is asked, which products of 16-bit integers tell of
// nearly all.
#ifndef CAIRN_KERNELS_CPU_SCORE_LOOPS_H_
#define CAIRN_KERNELS_CPU_SCORE_LOOPS_H_

#include <type_traits>

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
    const int32_t row = slot % t.block_size, in_block = t.block_size - row;
    const int rows = in_block < count - i ? in_block : count - i;
    for (int j = 0; j < rows; ++j) keys[i + j] = block + (row + j) * row_bytes;
    i += rows;
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
  const F32x16 least = Set(-__builtin_inff());
  F32x16 most = least, others[3] = {least, least, least};
  int64_t whole = 0;
  for (; whole + 4 * kLanes <= n; whole += 4 * kLanes) {  // side by side, else each waits for the one before
    most = Max(most, Load(x + whole));
    CAIRN_UNROLL for (int i = 0; i < 3; ++i) others[i] = Max(others[i], Load(x + whole + (i + 1) * kLanes));
  }
  CAIRN_UNROLL for (int i = 0; i < 3; ++i) most = Max(most, others[i]);
  ForLanes(
      n - whole, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 v = LoadUpTo(x + whole + i, lanes);
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

// out[i] = x(i) . y(i), i < count.
template <typename X, typename Y>
CAIRN_SIMD void Dots(int64_t count, int64_t padded, const X& x, const Y& y, float* out) {
  int64_t s = 0;
  for (; s + kLanes <= count; s += kLanes) {
    F32x16 products[kLanes];
    CAIRN_UNROLL for (int i = 0; i < kLanes; ++i) products[i] = Products(x(s + i), y(s + i), padded);
    Store(out + s, SumsOf(products));
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
using ColumnBits = std::conditional_t<kSimilarPanels == 2, uint32_t, uint16_t>;

// Columns [first, first + kSimilarColumns) of the panels. kAbove: pairs with column > row alone.
template <bool kAbove>
struct SimilarColumns {
  int first;
  ColumnBits open;               // have not found the last row that is similar
  U32x16 start[kSimilarPanels];  // of the sums of products, which are negative where nothing is similar
  uint64_t possible_rows;        // that may be similar to one of them

  SimilarColumns(const KeyPairs& t, int first)
      : first(first), open(static_cast<ColumnBits>(t.searching_columns >> first)) {
    const ColumnBits valid = static_cast<ColumnBits>(t.valid >> first);
    const U32x16 none = SetU32(static_cast<uint32_t>(kNone)), zero = SetU32(static_cast<uint32_t>(-t.first_similar));
    CAIRN_UNROLL for (int p = 0; p < kSimilarPanels; ++p) {
      start[p] = WhereU32(valid >> (p * kLanes) & 0xffff, zero, none);
    }
    possible_rows = valid == 0 ? 0
                    : kAbove   ? ~uint64_t{0} >> (kKeyTileSlots + 1 - first - kSimilarColumns)
                               : ~uint64_t{0};
  }
  // What the row may be similar to in a panel.
  CAIRN_SIMD uint32_t Of(int row, int panel) const {
    const int skipped = kAbove ? row + 1 - first - panel * kLanes : 0;
    return skipped >= kLanes ? 0 : 0xffffu << (skipped > 0 ? skipped : 0) & 0xffff;
  }

  // Where a column is none, its products are zeros.
  static constexpr int32_t kNone = INT32_MIN;
};

// Rows in ascending order, which are taken from behind. Before them the first one again and again, so that there are
// always enough for a block.
class RowList {
 public:
  explicit RowList(uint64_t rows) { Set(rows); }
  void Set(uint64_t rows) {
    count_ = 0;
    int32_t* const list = rows_ + kSimilarRows;
    for (int i = 0; i < kKeyTileSlots; i += kLanes) {
      count_ += StoreSetBits(list + count_, i, static_cast<uint32_t>(rows >> i & 0xffff));
    }
    CAIRN_UNROLL for (int i = 0; i < kSimilarRows; ++i) rows_[i] = list[0];
  }
  int count() const { return count_; }
  // The last `rows` of them, fewer if there are fewer.
  const int32_t* Take(int rows) {
    const int32_t* taken = rows_ + kSimilarRows + count_ - rows;
    count_ = count_ > rows ? count_ - rows : 0;
    return taken;
  }
  // Bits of those that have not been taken, of which there are some, and of rows between.
  uint64_t Possible() const { return ~uint64_t{0} >> (kKeyTileSlots - 1 - rows_[kSimilarRows + count_ - 1]); }

 private:
  int count_;
  int32_t rows_[kSimilarRows + kKeyTileSlots + kLanes];
};

// The chain of FMAs.
CAIRN_SIMD bool IsSimilar(const KeyPairs& t, int row, int column) {
  const float *x = t.row_units + row * t.padded, *y = t.column_units + column * t.padded;
  float product = 0;
  for (int64_t i = 0; i < t.head_dim; ++i) product = __builtin_fmaf(x[i], y[i], product);
  return product > t.threshold;
}

// Of the columns that a row may be similar to, those that it is, as far as anyone wants to know.
template <bool kAbove>
__attribute__((noinline)) ColumnBits WithoutDoubt(const KeyPairs& t, int row, const SimilarColumns<kAbove>& columns,
                                                  ColumnBits similar, ColumnBits doubtful) {
  uint32_t sure = similar & ~doubtful;
  for (uint32_t left = similar & doubtful; left != 0;) {
    const int column = 31 ^ __builtin_clz(left);
    left &= ~(1u << column);
    const bool matters = (columns.open >> column & 1) != 0 || sure >> column == 0;
    if (matters && IsSimilar(t, row, columns.first + column)) sure |= 1u << column;
  }
  return static_cast<ColumnBits>(sure);
}

// R rows, whose products become the columns' bits of their masks without being stored. Returns the columns that are
// similar to one of the rows.
template <int R, bool kAbove>
CAIRN_SIMD ColumnBits SimilarBlock(const KeyPairs& t, const int32_t* rows, const SimilarColumns<kAbove>& columns,
                                   uint64_t* masks) {
  constexpr int P = kSimilarPanels;
  const uint32_t* x[R];
  U32x16 sums[R][P];
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    x[r] = reinterpret_cast<const uint32_t*>(t.rows + rows[r] * t.padded);
    CAIRN_UNROLL for (int p = 0; p < P; ++p) sums[r][p] = columns.start[p];
  }
  const int64_t pairs = (t.head_dim + 1) / 2;
  const uint32_t* w = t.columns + columns.first * pairs;
  for (int64_t k = 0; k < pairs; ++k, w += kLanes) {
    U32x16 wk[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) wk[p] = LoadU32(w + p * kLanes * pairs);
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      const U32x16 xk = BroadcastU32(x[r] + k);
      CAIRN_UNROLL for (int p = 0; p < P; ++p) sums[r][p] = DotI16(sums[r][p], xk, wk[p]);
    }
  }
  // A row's bits of the panels.
  const auto bits_of = [&](int row) __attribute__((always_inline)) {
    return reinterpret_cast<uint16_t*>(masks + row) + columns.first / kLanes;
  };
  // As unsigned numbers negative sums are the largest.
  U32x16 least[P];
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    uint16_t* const bits = bits_of(rows[r]);
    CAIRN_UNROLL for (int p = 0; p < P; ++p) {
      const uint32_t similar = MaskNotNegative(sums[r][p]);
      bits[p] = static_cast<uint16_t>(kAbove ? similar & columns.Of(rows[r], p) : similar);
      least[p] = r == 0 ? sums[r][p] : MinU32(least[p], sums[r][p]);
    }
  }
  const U32x16 doubt = SetU32(t.doubt);
  const bool has_doubt = MaskAtMostU32(MinU32(least[0], least[P - 1]), doubt) != 0;
  ColumnBits found = 0;
  if (__builtin_expect(!has_doubt && !kAbove, true)) {
    CAIRN_UNROLL for (int p = 0; p < P; ++p) found |= MaskNotNegative(least[p]) << (p * kLanes);
    return found;
  }
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    ColumnBits doubtful = 0, similar;
    CAIRN_UNROLL for (int p = 0; p < P; ++p) doubtful |= MaskAtMostU32(sums[r][p], doubt) << (p * kLanes);
    __builtin_memcpy(&similar, bits_of(rows[r]), sizeof similar);
    similar = WithoutDoubt(t, rows[r], columns, similar, doubtful);
    __builtin_memcpy(bits_of(rows[r]), &similar, sizeof similar);
    found |= similar;
  }
  return found;
}

// Bit i: x[i] is not zero, i < 64.
uint64_t NonZero(const uint64_t* x) {
  uint64_t mask = 0;
  for (int i = 0; i < kKeyTileSlots; i += 8) mask |= static_cast<uint64_t>(MaskNonZero(x + i)) << i;
  return mask;
}

// The last columns and the last rows first: a row or column that has found its last one needs no more, and the rows
// that are left are looked at side by side.
template <bool kAbove>
uint64_t SimilarKeys(const KeyPairs& t, uint64_t* masks) {
  CAIRN_UNROLL for (int i = 0; i < kKeyTileSlots; i += kLanes / 2) StoreU32(masks + i, SetU32(0));
  for (int first = kKeyTileSlots - kSimilarColumns; first >= 0; first -= kSimilarColumns) {
    SimilarColumns<kAbove> some(t, first);
    const uint64_t searching = t.searching_rows & ~NonZero(masks);
    RowList rows(some.open != 0 ? some.possible_rows : some.possible_rows & searching);
    while (rows.count() > 0) {
      constexpr int kAll = kSimilarRows, kFew = kSimilarRows / 2;
      const ColumnBits found = rows.count() > kFew ? SimilarBlock<kAll>(t, rows.Take(kAll), some, masks)
                                                   : SimilarBlock<kFew>(t, rows.Take(kFew), some, masks);
      if (some.open == 0) continue;
      some.open &= ~found;
      if (some.open == 0 && rows.count() > 0) rows.Set(rows.Possible() & searching);
    }
  }
  return NonZero(masks);
}

uint64_t SimilarKeys(const KeyPairs& t, uint64_t* masks) {
  return t.above ? SimilarKeys<true>(t, masks) : SimilarKeys<false>(t, masks);
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
