// Scores of slots, one KV head after the other.
#include <algorithm>
#include <cmath>

#include "kernels/core/dtype.h"
#include "kernels/cpu/fixed_point.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

float* Row(const Tensor& t, int64_t row) { return t.data<float>() + row * t.row_stride(); }

// The key of a slot as float32.
void ReadKey(const KvView& kv, int head, int32_t slot, float* key) {
  const uint8_t* k = kv.k(head, slot);
  for (int i = 0; i < kv.layout.head_dim; ++i) {
    if (kv.layout.dtype == DType::kFloat32) {
      key[i] = reinterpret_cast<const float*>(k)[i];
    } else {
      const uint16_t bits = reinterpret_cast<const uint16_t*>(k)[i];
      key[i] = kv.layout.dtype == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
    }
  }
}

float Dot(const float* x, const float* y, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void Softmax(float* x, int64_t n) {
  const float max = *std::max_element(x, x + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - max);
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

// logits[v, i] of the w * G query vectors of a head (v = r * G + g) against slots [0, slots).
void WindowLogits(const KvView& kv, int head, const Tensor& queries, int64_t slots, float* key, float* logits) {
  const int64_t d = kv.layout.head_dim, G = queries.dim(1) / kv.layout.kv_heads, vectors = queries.dim(0) * G;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int64_t i = 0; i < slots; ++i) {
    ReadKey(kv, head, static_cast<int32_t>(i), key);
    for (int64_t v = 0; v < vectors; ++v) {
      logits[v * slots + i] = scale * Dot(Row(queries, v / G) + (head * G + v % G) * d, key, d);
    }
  }
}

// Unit keys of a head, [slots, d].
void UnitKeys(const KvView& kv, int head, int64_t slots, float* keys) {
  const int64_t d = kv.layout.head_dim;
  for (int64_t i = 0; i < slots; ++i) {
    float* key = keys + i * d;
    ReadKey(kv, head, static_cast<int32_t>(i), key);
    const float norm = std::sqrt(Dot(key, key, d)) + 1e-8f;
    for (int64_t j = 0; j < d; ++j) key[j] /= norm;
  }
}

void MeanOfRows(const float* rows, int64_t n, int64_t d, float* mean) {
  std::fill_n(mean, d, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < d; ++j) mean[j] += rows[i * d + j];
  }
  for (int64_t j = 0; j < d; ++j) mean[j] /= static_cast<float>(n);
}

// The most recent other key that is similar to key i, or -1.
int64_t NewestSimilar(const float* keys, int64_t n, int64_t d, int64_t i, float threshold) {
  for (int64_t j = n - 1; j >= 0; --j) {
    if (j != i && Dot(keys + i * d, keys + j * d, d) > threshold) return j;
  }
  return -1;
}

// Softmax of the mean similarity over n keys, to r [n].
void Redundancy(const float* keys, int64_t n, int64_t d, float threshold, RedundancyVariant variant, float* mean,
                float* r) {
  MeanOfRows(keys, n, d, mean);
  for (int64_t j = 0; j < n; ++j) {
    r[j] = Dot(keys + j * d, mean, d) - Dot(keys + j * d, keys + j * d, d) / static_cast<float>(n);
  }
  for (int64_t i = 0; i < n; ++i) {
    int64_t newest = NewestSimilar(keys, n, d, i, threshold);
    if (newest < 0 && variant == RedundancyVariant::kPaper) continue;
    newest = std::max<int64_t>(newest, 0);
    if (newest == i) continue;
    const float left_out = Dot(keys + i * d, keys + newest * d, d) / static_cast<float>(n);
    r[variant == RedundancyVariant::kCode ? newest : i] -= left_out;
  }
  Softmax(r, n);
}

}  // namespace

void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out) {
  const int64_t m = out.dim(1), w = queries.dim(0), G = queries.dim(1) / kv.layout.kv_heads;
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int worker) {
    float* key = static_cast<float*>(context.Scratch(worker, (kv.layout.head_dim + w * G * m) * sizeof(float)));
    float* logits = key + kv.layout.head_dim;
    WindowLogits(kv, static_cast<int>(head), queries, m, key, logits);
    std::fill_n(Row(out, head), m, 0.0f);
    for (int64_t r = 0; r < w; ++r) {
      float* row = logits + r * G * m;
      for (int64_t g = 1; g < G; ++g) {
        for (int64_t i = 0; i < m; ++i) row[i] = std::max(row[i], row[g * m + i]);
      }
      Softmax(row, m);
      for (int64_t i = 0; i < m; ++i) Row(out, head)[i] += row[i] / static_cast<float>(w);
    }
  });
}

void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce,
                     const Tensor& out) {
  const int64_t n = kv.num_slots, w = queries.dim(0), G = queries.dim(1) / kv.layout.kv_heads;
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int worker) {
    float* key = static_cast<float*>(context.Scratch(worker, (kv.layout.head_dim + w * G * n) * sizeof(float)));
    float* p = key + kv.layout.head_dim;
    WindowLogits(kv, static_cast<int>(head), queries, n, key, p);
    for (int64_t v = 0; v < w * G; ++v) {
      const int64_t visible = n - w + v / G + 1;
      Softmax(p + v * n, visible);
      std::fill(p + v * n + visible, p + v * n + n, 0.0f);
    }
    for (int64_t i = 0; i < out.dim(1); ++i) {
      int64_t fixed = 0;
      float largest = 0, maxima = 0;
      for (int64_t g = 0; g < G; ++g) {
        float sum = 0;
        for (int64_t r = 0; r < w; ++r) sum += p[(r * G + g) * n + i];
        fixed += ToFixedPoint(sum);
        largest = std::max(largest, sum);
      }
      for (int64_t r = 0; r < w; ++r) {
        float max = 0;
        for (int64_t g = 0; g < G; ++g) max = std::max(max, p[(r * G + g) * n + i]);
        maxima += max;
      }
      const double sum = static_cast<double>(fixed) / kFixedPointOne;
      Row(out, head)[i] = reduce == WindowReduce::kMeanOfHeads  ? static_cast<float>(sum / static_cast<double>(G))
                          : reduce == WindowReduce::kSumOfHeads ? static_cast<float>(sum)
                          : reduce == WindowReduce::kMaxOfHeads ? largest
                                                                : maxima / static_cast<float>(w);
    }
  });
}

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, const Tensor& out) {
  const int64_t m = out.dim(1), d = kv.layout.head_dim;
  const int64_t n = variant == RedundancyVariant::kCode ? kv.num_slots : m;
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int worker) {
    float* mean = static_cast<float*>(context.Scratch(worker, (d + n + n * d) * sizeof(float)));
    float *r = mean + d, *keys = r + n;
    UnitKeys(kv, static_cast<int>(head), n, keys);
    Redundancy(keys, n, d, threshold, variant, mean, r);
    std::copy_n(r, m, Row(out, head));
  });
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  const int64_t n = kv.num_slots, d = kv.layout.head_dim;
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int worker) {
    float* mean = static_cast<float*>(context.Scratch(worker, (d + n * d) * sizeof(float)));
    float* keys = mean + d;
    UnitKeys(kv, static_cast<int>(head), n, keys);
    MeanOfRows(keys, n, d, mean);
    const float norm = std::sqrt(Dot(mean, mean, d)) + 1e-8f;
    for (int64_t i = 0; i < out.dim(1); ++i) Row(out, head)[i] = -Dot(keys + i * d, mean, d) / norm;
  });
}

void SlotRecency(Context&, int32_t num_slots, const Tensor& out) {
  for (int64_t head = 0; head < out.dim(0); ++head) {
    for (int64_t i = 0; i < out.dim(1); ++i) Row(out, head)[i] = static_cast<float>(i) / static_cast<float>(num_slots);
  }
}

void PoolSlots(Context&, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out) {
  const int64_t m = x.dim(1), half = kernel_size / 2;
  for (int64_t head = 0; head < x.dim(0); ++head) {
    const float* from = Row(x, head);
    for (int64_t i = 0; i < m; ++i) {
      const int64_t begin = std::max<int64_t>(0, i - half), end = std::min(m, i + half + 1);
      float sum = 0;
      for (int64_t j = begin; j < end; ++j) sum += from[j];
      Row(out, head)[i] = pooling == Pooling::kMax ? *std::max_element(from + begin, from + end)
                                                   : sum / static_cast<float>(kernel_size);
    }
  }
}

void DivideByRowMax(Context&, const Tensor& x) {
  for (int64_t head = 0; head < x.dim(0); ++head) {
    float* row = Row(x, head);
    float max = 0;
    for (int64_t i = 0; i < x.dim(1); ++i) max = std::max(max, row[i]);
    if (max == 0) continue;
    for (int64_t i = 0; i < x.dim(1); ++i) row[i] /= max;
  }
}

void MixScores(Context&, float a, const Tensor& x, float b, const Tensor& y, const Tensor& out) {
  for (int64_t head = 0; head < x.dim(0); ++head) {
    for (int64_t i = 0; i < x.dim(1); ++i) Row(out, head)[i] = a * Row(x, head)[i] + b * Row(y, head)[i];
  }
}

void AddToRunningScores(Context&, const KvView& kv, float factor, const Tensor& added, const Tensor& scores) {
  for (int head = 0; head < kv.layout.kv_heads; ++head) {
    for (int32_t i = 0; i < kv.num_slots; ++i) {
      float& running = *kv.score(head, i);
      running += factor * Row(added, head)[i];
      if (i < scores.dim(1)) Row(scores, head)[i] = running;
    }
  }
}

void DecayRunningScores(Context&, const KvView& kv, float decay, const Tensor& current, const Tensor& scores) {
  for (int head = 0; head < kv.layout.kv_heads; ++head) {
    for (int32_t i = 0; i < scores.dim(1); ++i) {
      float& running = *kv.score(head, i);
      running = std::max(decay * running, Row(current, head)[i]);
      Row(scores, head)[i] = running;
    }
  }
}

}  // namespace cairn::cpu
