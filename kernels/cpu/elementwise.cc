#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rounding.h"

namespace cairn::cpu {

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const int64_t C = x.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float* in = x.data<float>() + t * x.row_stride();
    float* out = y.data<float>() + t * y.row_stride();
    float sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += in[c] * in[c];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(C) + eps);
    for (int64_t c = 0; c < C; ++c) {
      out[c] = RoundTo(context.activation_dtype(), in[c] * scale * weight.data<float>()[c]);
    }
  }
}

void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale) {
  const int64_t heads = x.dim(1), half = inv_freq.dim(0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float position = static_cast<float>(positions.data<int32_t>()[t]);
    for (int64_t i = 0; i < half; ++i) {
      const double angle = position * inv_freq.data<float>()[i];
      const float cosine = static_cast<float>(std::cos(angle)) * attention_scale;
      const float sine = static_cast<float>(std::sin(angle)) * attention_scale;
      for (int64_t h = 0; h < heads; ++h) {
        float* low = x.data<float>() + t * x.row_stride() + h * 2 * half + i;
        float* high = low + half;
        const float a = *low, b = *high;
        *low = RoundTo(context.activation_dtype(), a * cosine - b * sine);
        *high = RoundTo(context.activation_dtype(), b * cosine + a * sine);
      }
    }
  }
}

void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y) {
  const int64_t I = y.dim(1);
  for (int64_t t = 0; t < y.dim(0); ++t) {
    const float* gate = gate_up.data<float>() + t * gate_up.row_stride();
    const float* up = gate + I;
    float* out = y.data<float>() + t * y.row_stride();
    for (int64_t i = 0; i < I; ++i) {
      out[i] = RoundTo(context.activation_dtype(), gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
    }
  }
}

void AddInPlace(Context& context, const Tensor& x, const Tensor& y) {
  for (int64_t t = 0; t < x.dim(0); ++t) {
    float* out = x.data<float>() + t * x.row_stride();
    const float* in = y.data<float>() + t * y.row_stride();
    for (int64_t c = 0; c < x.dim(1); ++c) out[c] = RoundTo(context.activation_dtype(), out[c] + in[c]);
  }
}

}  // namespace cairn::cpu
