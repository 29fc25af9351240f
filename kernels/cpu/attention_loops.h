// Attention over a range of cache slots, for all query vectors that share a KV head. Included once by each instruction
// set's file.
//
// Tiles of 64 slots from slot 0: K is widened and transposed once for all query vectors, so that scores = q K^T is the
// matmul loop; so is weighted += p V, over V widened once or, for few vectors, as it lies in the cache (E4M3 becomes
// float32 first, in the order in which it lies); between them
// the online softmax (arXiv 1805.02867, 2205.14135). A row's arithmetic depends on its own visible slots alone: its
// scores are chains over head_dim, its sums run over the slots of one tile after the other.
#ifndef CAIRN_KERNELS_CPU_ATTENTION_LOOPS_H_
#define CAIRN_KERNELS_CPU_ATTENTION_LOOPS_H_

#include "kernels/cpu/kv_tile_loops.h"
#include "kernels/cpu/matmul_loops.h"
#include "kernels/cpu/row_loops.h"

namespace cairn::cpu {
namespace {

constexpr int kGroups = kTile / kLanes;

int64_t PaddedDim(int64_t d) { return (d + kLanes - 1) / kLanes * kLanes; }

// Working memory of one AttentionTile; kernels/cpu/attention.cc counts its floats.
struct Workspace {
  float* k;       // [slots at a time / 16][d][16]
  float* v;       // [padded_dim / 16][kTile][16]
  float* scores;  // [vectors, kTile]
  float* q;       // [vectors, d]
};

Workspace Carve(const AttentionTile& t) {
  const int64_t vectors = t.rows * t.group, padded = PaddedDim(t.head_dim);
  Workspace w;
  w.k = t.scratch;
  w.v = w.k + kTile * padded;
  w.scores = w.v + kTile * padded;
  w.q = w.scores + vectors * kTile;
  return w;
}

// Bit i: may the row see slot `slot` + i of the tile?
uint64_t VisibleSlots(const AttentionTile& t, const SlotRows& rows, int64_t row, int32_t slot) {
  const int64_t seen = t.first_row_end + row - slot;
  if (seen <= 0) return 0;
  const int64_t n = seen < rows.count ? seen : rows.count;
  uint64_t visible = n == kTile ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  if (t.window > 0) {
    const int32_t oldest = t.row_positions[row] - t.window + 1;
    for (int i = 0; i < kGroups; ++i) {
      const uint64_t hidden = MaskAtLeast(rows.position + i * kLanes, oldest) ^ 0xffff;
      visible &= ~(hidden << (i * kLanes));
    }
  }
  return visible;
}

// Hides the scores of one query vector that it may not see and turns the others into exp(scale score - max), where max
// is the largest scale score so far. Returns what the earlier sums must be multiplied by.
float SoftmaxTile(float* scores, uint64_t visible, float scale, float& max, float& sum) {
  F32x16 s[kGroups];
  CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) s[i] = Load(scores + i * kLanes);
  if (visible != ~uint64_t{0}) {
    const F32x16 hidden = Set(-__builtin_inff());
    CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) s[i] = Where((visible >> (i * kLanes)) & 0xffff, s[i], hidden);
  }
  const float largest = MaxOf(Max(Max(s[0], s[1]), Max(s[2], s[3]))) * scale;
  float factor = 1;
  if (largest > max) {
    factor = ExpOf(max - largest);
    max = largest;
  }
  CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) {
    s[i] = ExpBelow89(Fma(s[i], Set(scale), Set(-max)));
    Store(scores + i * kLanes, s[i]);
  }
  sum = __builtin_fmaf(sum, factor, SumOf(Add(Add(s[0], s[1]), Add(s[2], s[3]))));
  return factor;
}

void ScaleRow(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i += kLanes) Store(x + i, Mul(Load(x + i), Set(factor)));
}

void Begin(const AttentionTile& t, const Workspace& w) {
  const int64_t d = t.head_dim, padded = PaddedDim(d), vectors = t.rows * t.group;
  for (int64_t i = 0; i < vectors; ++i) {
    __builtin_memcpy(w.q + i * d, t.q + i / t.group * t.q_stride + i % t.group * d, d * sizeof(float));
    t.max[i] = -__builtin_inff();
    t.sum[i] = 0;
  }
  __builtin_memset(t.weighted, 0, vectors * padded * sizeof(float));
  if (padded != d) __builtin_memset(w.v, 0, padded * kTile * sizeof(float));
}

// scores = q K^T for every query vector, some slots at a time, so that their widened K stays in half of a 32 KB L1
// cache.
void ScoreTile(const AttentionTile& t, const SlotRows& rows, const Workspace& w) {
  const int64_t d = t.head_dim;
  const int slots_at_a_time = d <= 64 ? kTile : d <= 128 ? kTile / 2 : kTile / 4;
  MatMulTile product;
  product.x = w.q;
  product.x_stride = d;
  product.rows = t.rows * t.group;
  product.w = reinterpret_cast<const uint8_t*>(w.k);
  product.panel_bytes = d * kLanes * sizeof(float);
  product.k = d;
  product.y_stride = kTile;
  for (int begin = 0; begin < rows.count; begin += slots_at_a_time) {
    const int end = begin + slots_at_a_time < rows.count ? begin + slots_at_a_time : rows.count;
    WidenKeys(t.format, rows.k + begin, end - begin, d, w.k);
    product.panels = (end - begin + kLanes - 1) / kLanes;
    product.y = w.scores + begin;
    product.columns = product.panels * kLanes;
    Multiply<F32Weights>(product);
  }
}

// Query vectors and tile slots of one product with V.
struct ValueRange {
  int64_t begin = 0, end = 0;
  int low = 0, high = 0;
};

// weighted += scores V over V widened to panels.
void AddWidenedValues(const AttentionTile& t, const Workspace& w, const ValueRange& range) {
  const int64_t padded = PaddedDim(t.head_dim);
  MatMulTile product;
  product.x = w.scores + range.begin * kTile + range.low;
  product.x_stride = kTile;
  product.rows = range.end - range.begin;
  product.w = reinterpret_cast<const uint8_t*>(w.v + range.low * kLanes);
  product.panel_bytes = kTile * kLanes * sizeof(float);
  product.panels = padded / kLanes;
  product.k = range.high - range.low;
  product.y = t.weighted + range.begin * padded;
  product.y_stride = padded;
  product.columns = padded;
  product.accumulate = true;
  Multiply<F32Weights>(product);
}

// The same sums over V as it lies in the cache, for R vectors and 16 P dimensions: where few vectors share it, widening
// it in memory first would cost more than the sums.
template <Format F, int R, int P>
void AddCachedValues(const AttentionTile& t, const Workspace& w, const SlotRows& rows, const ValueRange& range,
                     int64_t dim) {
  float* y = t.weighted + range.begin * t.head_dim + dim;
  const float* p = w.scores + range.begin * kTile;
  Sums<R, P> sums;
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    CAIRN_UNROLL for (int i = 0; i < P; ++i) sums.at[r][i] = Load(y + r * t.head_dim + i * kLanes);
  }
  for (int s = range.low; s < range.high; ++s) {
    F32x16 v[P];
    CAIRN_UNROLL for (int i = 0; i < P; ++i) v[i] = LoadOf16(F, rows.v[s], dim + i * kLanes);
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      const F32x16 weight = Broadcast(p + r * kTile + s);
      CAIRN_UNROLL for (int i = 0; i < P; ++i) sums.at[r][i] = Fma(weight, v[i], sums.at[r][i]);
    }
  }
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    CAIRN_UNROLL for (int i = 0; i < P; ++i) Store(y + r * t.head_dim + i * kLanes, sums.at[r][i]);
  }
}

template <Format F, int R, int P>
void AddCachedDims(const AttentionTile& t, const Workspace& w, const SlotRows& rows, const ValueRange& range,
                   int64_t dim) {
  for (; dim + P * kLanes <= t.head_dim; dim += P * kLanes) AddCachedValues<F, R, P>(t, w, rows, range, dim);
  if constexpr (P > 1) AddCachedDims<F, R, P / 2>(t, w, rows, range, dim);
}

template <Format F, int R = kMaxRows>
void AddCachedRows(const AttentionTile& t, const Workspace& w, const SlotRows& rows, const ValueRange& range) {
  if (range.end - range.begin == R) {
    AddCachedDims<F, R, PanelsAtOnce(R, true)>(t, w, rows, range, 0);
  } else if constexpr (R > 1) {
    AddCachedRows<F, R - 1>(t, w, rows, range);
  }
}

// Few query vectors, in whole vectors of dimensions: V is used as it lies in the cache.
bool UsesCachedValues(const AttentionTile& t) { return t.rows * t.group <= 2 * kMaxRows && t.head_dim % kLanes == 0; }

void AddValues(const AttentionTile& t, const Workspace& w, const SlotRows& rows, const ValueRange& range) {
  if (range.begin == range.end || range.low == range.high) return;
  if (!UsesCachedValues(t)) return AddWidenedValues(t, w, range);
  const int64_t vectors = range.end - range.begin, blocks = (vectors + kMaxRows - 1) / kMaxRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const ValueRange part = {range.begin + vectors * b / blocks, range.begin + vectors * (b + 1) / blocks, range.low,
                             range.high};
    // E4M3: as float32 by now (Attend).
    if (t.format == Format::kF32 || t.format == Format::kF8) AddCachedRows<Format::kF32>(t, w, rows, part);
    if (t.format == Format::kBf16) AddCachedRows<Format::kBf16>(t, w, rows, part);
    if (t.format == Format::kF16) AddCachedRows<Format::kF16>(t, w, rows, part);
  }
}

// Softmax and the product with V of one tile, whose scores are there.
void AccumulateTile(const AttentionTile& t, const Workspace& w, const SlotRows& rows, int32_t slot) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(t.head_dim));
  const int64_t padded = PaddedDim(t.head_dim);
  // Neighbouring vectors with the same first and last visible slot go through the product together.
  ValueRange run;
  for (int64_t row = 0; row < t.rows; ++row) {
    const uint64_t visible = VisibleSlots(t, rows, row, slot);
    const int low = visible == 0 ? 0 : __builtin_ctzll(visible);
    const int high = visible == 0 ? 0 : kTile - __builtin_clzll(visible);
    run.end = row * t.group;
    if (low != run.low || high != run.high) {
      AddValues(t, w, rows, run);
      run = {run.end, run.end, low, high};
    }
    if (visible == 0) continue;
    for (int64_t i = row * t.group; i < (row + 1) * t.group; ++i) {
      const float factor = SoftmaxTile(w.scores + i * kTile, visible, scale, t.max[i], t.sum[i]);
      if (factor != 1.0f) ScaleRow(t.weighted + i * padded, padded, factor);
    }
  }
  run.end = t.rows * t.group;
  AddValues(t, w, rows, run);
}

void Attend(const AttentionTile& t) {
  const int64_t row_bytes = t.head_dim * ElementBytes(t.format);
  const Workspace w = Carve(t);
  Begin(t, w);
  SlotRows tiles[2];  // this one and the next
  FindRows(t, t.slot_begin, tiles[0]);
  for (int32_t slot = t.slot_begin, i = 0; slot < t.slot_end; slot += kTile, i ^= 1) {
    SlotRows& rows = tiles[i];
    if (slot + kTile < t.slot_end) {
      FindRows(t, slot + kTile, tiles[i ^ 1]);
      FetchTile(tiles[i ^ 1], row_bytes);
    }
    ScoreTile(t, rows, w);
    if (!UsesCachedValues(t)) {
      WidenValues(t.format, rows, t.head_dim, w.v);
    } else if (t.format == Format::kF8) {
      WidenValueRows(t.format, rows, t.head_dim, w.v);
    }
    AccumulateTile(t, w, rows, slot);
  }
}

// total = total * e^(max - m) + part * e^(part_max - m), m the larger maximum; a part without visible slots adds
// nothing.
void MergeAttention(float part_max, float part_sum, const float* part, int64_t n, float* max, float* sum,
                    float* weighted) {
  if (part_sum == 0) return;
  if (*sum == 0) {
    __builtin_memcpy(weighted, part, n * sizeof(float));
    *sum = part_sum;
    *max = part_max;
    return;
  }
  const float new_max = part_max > *max ? part_max : *max;
  const float old_factor = ExpOf(*max - new_max), part_factor = ExpOf(part_max - new_max);
  const F32x16 a = Set(old_factor), b = Set(part_factor);
  for (int64_t i = 0; i < n; i += kLanes) {
    Store(weighted + i, Fma(Load(weighted + i), a, Mul(Load(part + i), b)));
  }
  *sum = __builtin_fmaf(*sum, old_factor, part_sum * part_factor);
  *max = new_max;
}

void FinishAttention(const float* weighted, float sum, int64_t n, Format round, float* out) {
  const F32x16 divisor = Set(sum);
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        StoreUpTo(out + i, lanes, RoundTo(round, Div(Load(weighted + i), divisor)));
      });
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_ATTENTION_LOOPS_H_
