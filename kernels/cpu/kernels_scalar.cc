// The inner loops as the formulas read: the reference for the vector versions, and what runs on any other CPU.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/core/float8.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/panels.h"

namespace cairn::cpu {
namespace {

float LoadAs(Format format, const void* data, int64_t i) {
  if (format == Format::kF8) return Float8E4M3ToFloat(static_cast<const uint8_t*>(data)[i]);
  if (format == Format::kI8) return static_cast<const int8_t*>(data)[i];
  if (format == Format::kBf16) return BFloat16ToFloat(static_cast<const uint16_t*>(data)[i]);
  if (format == Format::kF16) return Float16ToFloat(static_cast<const uint16_t*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

int64_t ElementBytes(Format format) { return format == Format::kF32 ? 4 : format == Format::kF8 ? 1 : 2; }

float RoundTo(Format format, float value) {
  if (format == Format::kBf16) return BFloat16ToFloat(FloatToBFloat16(value));
  if (format == Format::kF16) return Float16ToFloat(FloatToFloat16(value));
  return value;
}

// y[m, n] (+)= sum over k of x[m, k] w[n, k], one panel of 16 columns at a time.
template <Format F>
void Multiply(const MatMulTile& t) {
  for (int64_t panel = 0; panel < t.panels; ++panel) {
    const uint8_t* w = t.w + panel * t.panel_bytes;
    const int64_t columns = std::min<int64_t>(kPanelColumns, t.columns - panel * kPanelColumns);
    for (int64_t m = 0; m < t.rows; ++m) {
      const float* x = t.x + m * t.x_stride;
      float* y = t.y + m * t.y_stride + panel * kPanelColumns;
      float sums[kPanelColumns] = {};
      if (t.accumulate) std::copy_n(y, columns, sums);
      for (int64_t k = 0; k < t.k; ++k) {
        for (int n = 0; n < kPanelColumns; ++n) sums[n] += x[k] * LoadAs(F, w, PanelIndex(F, k, n));
      }
      for (int64_t n = 0; n < columns; ++n) {
        const float bias = t.bias != nullptr ? t.bias[panel * kPanelColumns + n] : 0;
        y[n] = RoundTo(t.round, t.bias != nullptr ? sums[n] + bias : sums[n]);
      }
    }
  }
}

void RmsNorm(const float* x, const float* weight, int64_t n, float eps, Format round, float* y) {
  float squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = RoundTo(round, x[i] * scale * weight[i]);
}

void Rotate(float* x, const float* cosine, const float* sine, int64_t half, Format round) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = RoundTo(round, a * cosine[i] - b * sine[i]);
    x[half + i] = RoundTo(round, b * cosine[i] + a * sine[i]);
  }
}

void SwiGlu(const float* gate, const float* up, int64_t n, Format round, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = RoundTo(round, gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
}

void Add(const float* a, const float* b, int64_t n, Format round, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = RoundTo(round, a[i] + b[i]);
}

void Round(float* x, int64_t n, Format round) {
  for (int64_t i = 0; i < n; ++i) x[i] = RoundTo(round, x[i]);
}

void ConvertToF32(const float* x, int64_t n, void* y) { std::memcpy(y, x, n * sizeof(float)); }

void ConvertToBf16(const float* x, int64_t n, void* y) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(y)[i] = FloatToBFloat16(x[i]);
}

void ConvertToF16(const float* x, int64_t n, void* y) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(y)[i] = FloatToFloat16(x[i]);
}

// One query vector over the slots of the tile's range that it may see, one by one, rescaling when the maximum grows.
void AttendVector(const AttentionTile& t, int64_t row, const float* q, float* max, float* sum, float* weighted) {
  const int64_t d = t.head_dim, element = ElementBytes(t.format);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  *max = -INFINITY;
  *sum = 0;
  std::fill_n(weighted, d, 0.0f);
  for (int32_t slot = t.slot_begin; slot < t.slot_end && slot < t.first_row_end + row; ++slot) {
    const int64_t block = t.block_table[slot / t.block_size] * t.block_bytes, in_block = slot % t.block_size;
    const int32_t position = reinterpret_cast<const int32_t*>(t.positions + block)[in_block];
    if (t.window > 0 && position <= t.row_positions[row] - t.window) continue;
    const uint8_t* k = t.k + block + in_block * d * element;
    const uint8_t* v = t.v + block + in_block * d * element;
    float score = 0;
    for (int64_t i = 0; i < d; ++i) score += q[i] * LoadAs(t.format, k, i);
    score *= scale;
    if (score > *max) {
      const float factor = std::exp(*max - score);
      for (int64_t i = 0; i < d; ++i) weighted[i] *= factor;
      *sum *= factor;
      *max = score;
    }
    const float p = std::exp(score - *max);
    *sum += p;
    for (int64_t i = 0; i < d; ++i) weighted[i] += p * LoadAs(t.format, v, i);
  }
}

void Attend(const AttentionTile& t) {
  const int64_t padded = (t.head_dim + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  for (int64_t i = 0; i < t.rows * t.group; ++i) {
    const int64_t row = i / t.group;
    AttendVector(t, row, t.q + row * t.q_stride + i % t.group * t.head_dim, t.max + i, t.sum + i,
                 t.weighted + i * padded);
  }
}

void MergeAttention(float part_max, float part_sum, const float* part, int64_t n, float* max, float* sum,
                    float* weighted) {
  if (part_sum == 0) return;
  const float new_max = std::max(*max, part_max);
  const float old_factor = std::exp(*max - new_max), part_factor = std::exp(part_max - new_max);
  for (int64_t i = 0; i < n; ++i) weighted[i] = weighted[i] * old_factor + part[i] * part_factor;
  *sum = *sum * old_factor + part_sum * part_factor;
  *max = new_max;
}

void FinishAttention(const float* weighted, float sum, int64_t n, Format round, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = RoundTo(round, weighted[i] / sum);
}

float Dot(const float* x, const float* y, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void ReadKey(const KeyTile& t, int32_t slot, float* key) {
  const int64_t element = ElementBytes(t.format);
  const uint8_t* k =
      t.k + t.block_table[slot / t.block_size] * t.block_bytes + slot % t.block_size * t.head_dim * element;
  for (int64_t i = 0; i < t.head_dim; ++i) key[i] = LoadAs(t.format, k, i);
}

void KeyLogits(const KeyTile& t, const float* q, int64_t vectors, float* logits, int64_t stride, float* scratch) {
  for (int32_t slot = t.slot_begin; slot < t.slot_end; ++slot) {
    ReadKey(t, slot, scratch);
    for (int64_t v = 0; v < vectors; ++v) {
      logits[v * stride + slot - t.slot_begin] = Dot(q + v * t.head_dim, scratch, t.head_dim);
    }
  }
}

float ExpRow(float* x, int64_t n) {
  float max = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; ++i) max = std::max(max, x[i]);
  for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - max);
  return sum;
}

void AddScaledRow(const float* x, float factor, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * factor;
}

void MaxRow(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::max(y[i], x[i]);
}

void UnitKeys(const KeyTile& t, int64_t padded, float* units, float* squares, float* sum, int16_t*) {
  const int64_t d = t.head_dim;
  std::fill_n(sum, padded, 0.0f);
  std::fill_n(units, kKeyTileSlots * padded, 0.0f);
  std::fill_n(squares, kKeyTileSlots, 0.0f);
  for (int32_t s = 0; s < t.slot_end - t.slot_begin; ++s) {
    float* unit = units + s * padded;
    ReadKey(t, t.slot_begin + s, unit);
    const float factor = 1.0f / (std::sqrt(Dot(unit, unit, d)) + 1e-8f);
    for (int64_t i = 0; i < d; ++i) sum[i] += unit[i] *= factor;
    squares[s] = Dot(unit, unit, d);
  }
}

// All is done with the units themselves.
void KeyPanels(const int16_t*, int64_t, int64_t, uint32_t*) {}

uint64_t SimilarKeys(const KeyPairs& t, uint64_t* masks) {
  uint64_t found = 0;
  for (int64_t r = 0; r < kKeyTileSlots; ++r) {
    masks[r] = 0;
    for (int64_t c = t.above ? r + 1 : 0; c < kKeyTileSlots; ++c) {
      if ((t.searching_rows >> r & 1) == 0 && (t.searching_columns >> c & 1) == 0) continue;
      const float product = Dot(t.row_units + r * t.padded, t.column_units + c * t.padded, t.head_dim);
      if (product > t.threshold) masks[r] |= uint64_t{1} << c;
    }
    masks[r] &= t.valid;
    found |= static_cast<uint64_t>(masks[r] != 0) << r;
  }
  return found;
}

uint64_t Below(const int32_t* values, int32_t bound) {
  uint64_t mask = 0;
  for (int i = 0; i < kKeyTileSlots; ++i) mask |= static_cast<uint64_t>(values[i] < bound) << i;
  return mask;
}

void UnitDots(const float* units, int64_t padded, int64_t count, const float* x, float* out) {
  for (int64_t s = 0; s < count; ++s) out[s] = Dot(units + s * padded, x, padded);
}

void PairDots(const float* units, int64_t padded, int64_t begin, int64_t end, const int32_t* other, float* out) {
  for (int64_t s = begin; s < end; ++s) {
    out[s] = other[s] < 0 || other[s] == s ? 0 : Dot(units + s * padded, units + other[s] * padded, padded);
  }
}

}  // namespace

const Kernels kScalarKernels = {
    .name = "scalar",
    .max_rows = 1,
    .panels_at_once = 1,
    .multiply = {Multiply<Format::kF32>, Multiply<Format::kBf16>, Multiply<Format::kF16>, Multiply<Format::kF8>,
                 Multiply<Format::kI8>},
    .multiply_bf16_pairs = nullptr,
    .pack_bf16_pairs = nullptr,
    .tiled_pairs = false,
    .rms_norm = RmsNorm,
    .rotate = Rotate,
    .swiglu = SwiGlu,
    .add = Add,
    .round = Round,
    .convert = {ConvertToF32, ConvertToBf16, ConvertToF16},
    .attend = Attend,
    .merge_attention = MergeAttention,
    .finish_attention = FinishAttention,
    .key_logits = KeyLogits,
    .exp_row = ExpRow,
    .add_scaled = AddScaledRow,
    .max_row = MaxRow,
    .unit_keys = UnitKeys,
    .key_panels = KeyPanels,
    .similar_keys = SimilarKeys,
    .below = Below,
    .unit_dots = UnitDots,
    .pair_dots = PairDots,
};

}  // namespace cairn::cpu
