#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rounding.h"

namespace cairn::cpu {

void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences) {
  (void)context;
  const int64_t d = k.dim(2);
  for (const SequenceRows& rows : sequences) {
    for (int32_t i = 0; i < rows.num_rows; ++i) {
      const int64_t t = rows.row_begin + i;
      const int32_t slot = rows.kv.num_slots - rows.num_rows + i;
      for (int h = 0; h < rows.kv.layout.kv_heads; ++h) {
        const float* k_row = k.data<float>() + t * k.row_stride() + h * d;
        const float* v_row = v.data<float>() + t * v.row_stride() + h * d;
        for (int64_t j = 0; j < d; ++j) {
          StoreAs(rows.kv.layout.dtype, rows.kv.k(h, slot), j, k_row[j]);
          StoreAs(rows.kv.layout.dtype, rows.kv.v(h, slot), j, v_row[j]);
        }
        *rows.kv.position(h, slot) = positions.data<int32_t>()[t];
      }
    }
  }
}

namespace {

// One query vector over the slots [0, end) of one KV head.
void AttendOne(const KvView& kv, int head, int32_t end, int32_t oldest, const float* q, float* scores, float* out) {
  const int d = kv.layout.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  float max = -INFINITY;
  for (int32_t s = 0; s < end; ++s) {
    float dot = 0;
    for (int i = 0; i < d; ++i) dot += q[i] * LoadAs(kv.layout.dtype, kv.k(head, s), i);
    scores[s] = *kv.position(head, s) >= oldest ? dot * scale : -INFINITY;
    max = std::max(max, scores[s]);
  }
  float sum = 0;
  std::fill_n(out, d, 0.0f);
  for (int32_t s = 0; s < end; ++s) {
    const float p = std::exp(scores[s] - max);
    if (p == 0) continue;
    sum += p;
    for (int i = 0; i < d; ++i) out[i] += p * LoadAs(kv.layout.dtype, kv.v(head, s), i);
  }
  for (int i = 0; i < d; ++i) out[i] /= sum;
}

}  // namespace

void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out) {
  const int64_t heads = q.dim(1), d = q.dim(2);
  for (const SequenceRows& rows : sequences) {
    const int64_t group = heads / rows.kv.layout.kv_heads;
    context.threads().ParallelFor(rows.num_rows * heads, [&](int64_t task, int worker) {
      const int64_t i = task / heads, h = task % heads, t = rows.row_begin + i;
      const int32_t end = rows.kv.num_slots - rows.num_rows + static_cast<int32_t>(i) + 1;
      const int32_t oldest = sliding_window > 0 ? positions.data<int32_t>()[t] - sliding_window + 1 : INT32_MIN;
      float* scores = static_cast<float*>(context.Scratch(worker, end * sizeof(float)));
      float* result = out.data<float>() + t * out.row_stride() + h * d;
      AttendOne(rows.kv, static_cast<int>(h / group), end, oldest, q.data<float>() + t * q.row_stride() + h * d, scores,
                result);
      for (int64_t j = 0; j < d; ++j) result[j] = RoundTo(context.activation_dtype(), result[j]);
    });
  }
}

}  // namespace cairn::cpu
