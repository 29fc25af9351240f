// The small steps between scores: rows of one number per slot.
#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/core/token_hash.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

float* Row(const Tensor& t, int64_t row) { return t.data<float>() + row * t.row_stride(); }

// out[i] = x[i - half .. i + half] put together from the left: one neighbour of every slot after the other, which makes
// vectors of it.
template <typename Combine>
void PoolRow(const float* x, int64_t m, int64_t half, float border, float* out, const Combine& combine) {
  std::fill_n(out, m, border);
  for (int64_t shift = -half; shift <= half; ++shift) {
    const int64_t end = std::min(m, m - shift);
    for (int64_t i = std::max<int64_t>(0, -shift); i < end; ++i) out[i] = combine(out[i], x[i + shift]);
  }
}

}  // namespace

void SlotRecency(Context&, int32_t num_slots, const Tensor& out) {
  for (int64_t head = 0; head < out.dim(0); ++head) {
    for (int64_t i = 0; i < out.dim(1); ++i) Row(out, head)[i] = static_cast<float>(i) / static_cast<float>(num_slots);
  }
}

void RandomScores(Context&, const KvView& kv, int32_t layer, int32_t first_kv_head, const Tensor& out) {
  for (int head = 0; head < kv.layout.kv_heads; ++head) {
    for (int32_t i = 0; i < out.dim(1); ++i) {
      Row(out, head)[i] = UniformOfToken(layer, first_kv_head + head, *kv.position(head, i));
    }
  }
}

void PoolSlots(Context& context, const Tensor& x, Pooling pooling, int kernel_size, const Tensor& out) {
  context.threads().ParallelFor(x.dim(0), [&](int64_t head, int) {
    if (pooling == Pooling::kMax) {
      PoolRow(Row(x, head), x.dim(1), kernel_size / 2, -INFINITY, Row(out, head),
              [](float a, float b) { return std::max(a, b); });
    } else {
      PoolRow(Row(x, head), x.dim(1), kernel_size / 2, 0.0f, Row(out, head), std::plus<float>());
      for (int64_t i = 0; i < x.dim(1); ++i) Row(out, head)[i] /= static_cast<float>(kernel_size);
    }
  });
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
  const int64_t columns = x.dim(1);
  for (int64_t head = 0; head < x.dim(0); ++head) {
    const float *from = Row(x, head), *other = Row(y, head);
    float* to = Row(out, head);
    for (int64_t i = 0; i < columns; ++i) to[i] = a * from[i] + b * other[i];
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

void AverageRunningScores(Context&, const KvView& kv, int window, int plane, int32_t windows, const Tensor& current,
                          const Tensor& scores) {
  for (int head = 0; head < kv.layout.kv_heads; ++head) {
    const int32_t newest = *kv.position(head, kv.num_slots - 1);
    for (int32_t i = 0; i < kv.num_slots; ++i) {
      const int32_t count = std::min(windows, (newest - *kv.position(head, i)) / window + 1);
      float& running = *kv.score(head, i, plane);
      running += (Row(current, head)[i] - running) / static_cast<float>(count);
      if (i < scores.dim(1)) Row(scores, head)[i] = running;
    }
  }
}

}  // namespace cairn::cpu
