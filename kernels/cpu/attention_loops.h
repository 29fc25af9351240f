// Attention over a range of cache slots, for all query vectors that share a KV head. Included once by each instruction
// set's file.
//
// Tiles of 64 slots from slot 0: K and V of the tile are read and widened once, K transposed, both into the layout of
// weight panels, so that scores = q K^T and weighted += p V are the matmul loops; between them the online softmax
// (arXiv 1805.02867, 2205.14135). A row's arithmetic depends on its own visible slots alone: its scores are chains over
// head_dim, its sums run over the slots of one tile after the other.
#ifndef CAIRN_KERNELS_CPU_ATTENTION_LOOPS_H_
#define CAIRN_KERNELS_CPU_ATTENTION_LOOPS_H_

#include "kernels/cpu/matmul_loops.h"
#include "kernels/cpu/row_loops.h"

namespace cairn::cpu {
namespace {

constexpr int kTile = kAttentionTileSlots;
constexpr int kGroups = kTile / kLanes;

int64_t PaddedDim(int64_t d) { return (d + kLanes - 1) / kLanes * kLanes; }

// Working memory of one AttentionTile (laid out as AttentionScratchFloats in kernels/cpu/attention.cc counts it).
struct Workspace {
  float* q;       // [vectors, d]
  float* k;       // [kGroups][d][16]
  float* v;       // [padded_dim / 16][kTile][16]
  float* scores;  // [vectors, kTile]
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

int64_t ElementBytes(Format format) { return format == Format::kF32 ? 4 : 2; }

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

CAIRN_SIMD __m256 LoadOf8(Format format, const uint8_t* row, int64_t at) {
  if (format == Format::kBf16) return LoadBf16Of8(reinterpret_cast<const uint16_t*>(row) + at);
  if (format == Format::kF16) return LoadF16Of8(reinterpret_cast<const uint16_t*>(row) + at);
  return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + at);
}

float LoadOne(Format format, const uint8_t* row, int64_t at) {
  if (format == Format::kF32) return reinterpret_cast<const float*>(row)[at];
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

template <Format F>
void WidenKeys(const SlotRows& rows, int64_t d, float* k) {
  for (int32_t s = 0; s < rows.count; s += 8) {
    float* panel = k + s / kLanes * kLanes * d + s % kLanes;
    int64_t at = 0;
    if constexpr (F == Format::kBf16) {
      for (; at + 16 <= d; at += 16) TransposeKeyPairs8(rows.k + s, at, panel);
    }
    for (; at + 8 <= d; at += 8) TransposeKeys8<F>(rows.k + s, at, panel);
    for (; at < d; ++at) {
      for (int lane = 0; lane < 8; ++lane) panel[at * kLanes + lane] = LoadOne(F, rows.k[s + lane], at);
    }
  }
}

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

void WidenTile(Format format, const SlotRows& rows, int64_t d, const Workspace& w) {
  switch (format) {
    case Format::kF32:
      WidenKeys<Format::kF32>(rows, d, w.k);
      WidenValues<Format::kF32>(rows, d, w.v);
      return;
    case Format::kBf16:
      WidenKeys<Format::kBf16>(rows, d, w.k);
      WidenValues<Format::kBf16>(rows, d, w.v);
      return;
    case Format::kF16:
      WidenKeys<Format::kF16>(rows, d, w.k);
      WidenValues<Format::kF16>(rows, d, w.v);
      return;
  }
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

// Scales the scores of one query vector, hides what it may not see, and turns them into exp(score - max), where max is
// the largest so far. Returns what the earlier sums must be multiplied by.
float SoftmaxTile(float* scores, uint64_t visible, float scale, float& max, float& sum) {
  F32x16 s[kGroups];
  CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) {
    s[i] = Mul(Load(scores + i * kLanes), Set(scale));
    Store(scores + i * kLanes, s[i]);
  }
  if (visible != ~uint64_t{0}) {
    for (int i = 0; i < kTile; ++i) {
      if ((visible >> i & 1) == 0) scores[i] = -__builtin_inff();
    }
    CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) s[i] = Load(scores + i * kLanes);
  }
  const float largest = MaxOf(Max(Max(s[0], s[1]), Max(s[2], s[3])));
  const float new_max = largest > max ? largest : max;
  const F32x16 shift = Set(new_max);
  CAIRN_UNROLL for (int i = 0; i < kGroups; ++i) {
    s[i] = Exp(Sub(s[i], shift));
    Store(scores + i * kLanes, s[i]);
  }
  float old[kLanes];
  Store(old, Exp(Sub(Set(max), shift)));
  sum = __builtin_fmaf(sum, old[0], SumOf(Add(Add(s[0], s[1]), Add(s[2], s[3]))));
  max = new_max;
  return old[0];
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

// scores = q K^T for every query vector.
void ScoreTile(const AttentionTile& t, const SlotRows& rows, const Workspace& w) {
  MatMulTile product;
  product.x = w.q;
  product.x_stride = t.head_dim;
  product.rows = t.rows * t.group;
  product.w = reinterpret_cast<const uint8_t*>(w.k);
  product.panel_bytes = t.head_dim * kLanes * sizeof(float);
  product.panels = (rows.count + kLanes - 1) / kLanes;
  product.k = t.head_dim;
  product.y = w.scores;
  product.y_stride = kTile;
  product.columns = product.panels * kLanes;
  Multiply<F32Weights>(product);
}

// weighted += scores V for the vectors [begin, end), over the tile's slots [low, high).
void AddValues(const AttentionTile& t, const Workspace& w, int64_t begin, int64_t end, int low, int high) {
  if (begin == end || low == high) return;
  const int64_t padded = PaddedDim(t.head_dim);
  MatMulTile product;
  product.x = w.scores + begin * kTile + low;
  product.x_stride = kTile;
  product.rows = end - begin;
  product.w = reinterpret_cast<const uint8_t*>(w.v + low * kLanes);
  product.panel_bytes = kTile * kLanes * sizeof(float);
  product.panels = padded / kLanes;
  product.k = high - low;
  product.y = t.weighted + begin * padded;
  product.y_stride = padded;
  product.columns = padded;
  product.accumulate = true;
  Multiply<F32Weights>(product);
}

void Attend(const AttentionTile& t) {
  const int64_t padded = PaddedDim(t.head_dim);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(t.head_dim));
  const Workspace w = Carve(t);
  Begin(t, w);
  for (int32_t slot = t.slot_begin; slot < t.slot_end; slot += kTile) {
    SlotRows rows;
    FindRows(t, slot, rows);
    WidenTile(t.format, rows, t.head_dim, w);
    ScoreTile(t, rows, w);
    // Neighbouring vectors with the same first and last visible slot go through the second product together.
    int64_t run_begin = 0;
    int run_low = 0, run_high = 0;
    for (int64_t row = 0; row < t.rows; ++row) {
      const uint64_t visible = VisibleSlots(t, rows, row, slot);
      const int low = visible == 0 ? 0 : __builtin_ctzll(visible);
      const int high = visible == 0 ? 0 : kTile - __builtin_clzll(visible);
      const int64_t begin = row * t.group;
      if (low != run_low || high != run_high) {
        AddValues(t, w, run_begin, begin, run_low, run_high);
        run_begin = begin;
        run_low = low;
        run_high = high;
      }
      if (visible == 0) continue;
      for (int64_t i = begin; i < begin + t.group; ++i) {
        const float factor = SoftmaxTile(w.scores + i * kTile, visible, scale, t.max[i], t.sum[i]);
        if (factor != 1.0f) ScaleRow(t.weighted + i * padded, padded, factor);
      }
    }
    AddValues(t, w, run_begin, t.rows * t.group, run_low, run_high);
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
  float old_factor[kLanes], part_factor[kLanes];
  Store(old_factor, Exp(Set(*max - new_max)));
  Store(part_factor, Exp(Set(part_max - new_max)));
  const F32x16 a = Set(old_factor[0]), b = Set(part_factor[0]);
  for (int64_t i = 0; i < n; i += kLanes) {
    Store(weighted + i, Fma(Load(weighted + i), a, Mul(Load(part + i), b)));
  }
  *sum = __builtin_fmaf(*sum, old_factor[0], part_sum * part_factor[0]);
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
