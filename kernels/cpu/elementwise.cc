#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

float* Row(const Tensor& tensor, int64_t row) { return tensor.data<float>() + row * tensor.row_stride(); }

// Fills the context's table for these positions unless it holds them already.
const Context::RotaryTable& RotaryTableFor(Context& context, const Tensor& positions, const Tensor& inv_freq,
                                           float attention_scale) {
  Context::RotaryTable& table = context.rotary_table();
  const int32_t* p = positions.data<int32_t>();
  const float* f = inv_freq.data<float>();
  const int64_t rows = positions.dim(0), half = inv_freq.dim(0);
  if (attention_scale == table.attention_scale &&
      std::equal(p, p + rows, table.positions.begin(), table.positions.end()) &&
      std::equal(f, f + half, table.inv_freq.begin(), table.inv_freq.end())) {
    return table;
  }
  table.positions.assign(p, p + rows);
  table.inv_freq.assign(f, f + half);
  table.attention_scale = attention_scale;
  table.cosine.resize(rows * half);
  table.sine.resize(rows * half);
  // The angle is rounded to float32, as Hugging Face does; its cosine and sine are then those of that float32.
  ParallelRows(context, rows, half * 32, [&](int64_t row) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p[row]) * f[i];
      table.cosine[row * half + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * attention_scale;
      table.sine[row * half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * attention_scale;
    }
  });
  return table;
}

}  // namespace

void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const Kernels& kernels = context.cpu_kernels();
  const Format round = ActivationFormat(context);
  const int64_t C = weight.dim(0), per_row = x.row_elements() / C;
  ParallelRows(context, x.dim(0), x.row_elements(), [&](int64_t t) {
    for (int64_t h = 0; h < per_row; ++h) {
      kernels.rms_norm(Row(x, t) + h * C, weight.data<float>(), C, eps, round, Row(y, t) + h * C);
    }
  });
}

void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed) {
  const Kernels& kernels = context.cpu_kernels();
  const Format round = ActivationFormat(context);
  const int64_t C = hidden.dim(1);
  ParallelRows(context, hidden.dim(0), 2 * C, [&](int64_t t) {
    kernels.add(Row(hidden, t), Row(update, t), C, round, Row(hidden, t));
    kernels.rms_norm(Row(hidden, t), weight.data<float>(), C, eps, round, Row(normed, t));
  });
}

void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq, float attention_scale) {
  const Kernels& kernels = context.cpu_kernels();
  const Format round = ActivationFormat(context);
  const int64_t heads = x.dim(1), half = inv_freq.dim(0);
  const Context::RotaryTable& table = RotaryTableFor(context, positions, inv_freq, attention_scale);
  ParallelRows(context, x.dim(0), x.row_elements(), [&](int64_t t) {
    const float* cosine = table.cosine.data() + t * half;
    const float* sine = table.sine.data() + t * half;
    for (int64_t h = 0; h < heads; ++h) kernels.rotate(Row(x, t) + h * 2 * half, cosine, sine, half, round);
  });
}

void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y) {
  const Kernels& kernels = context.cpu_kernels();
  const Format round = ActivationFormat(context);
  const int64_t I = y.dim(1);
  ParallelRows(context, y.dim(0), 2 * I,
               [&](int64_t t) { kernels.swiglu(Row(gate_up, t), Row(gate_up, t) + I, I, round, Row(y, t)); });
}

void AddInPlace(Context& context, const Tensor& x, const Tensor& y) {
  const Kernels& kernels = context.cpu_kernels();
  const Format round = ActivationFormat(context);
  ParallelRows(context, x.dim(0), x.dim(1),
               [&](int64_t t) { kernels.add(Row(x, t), Row(y, t), x.dim(1), round, Row(x, t)); });
}

void RoundToActivation(Context& context, const Tensor& x, const Tensor& y) {
  const Format round = ActivationFormat(context);
  const Kernels& kernels = context.cpu_kernels();
  const int64_t C = x.dim(1);
  ParallelRows(context, x.dim(0), C, [&](int64_t t) {
    if (x.raw() != y.raw()) std::copy_n(Row(x, t), C, Row(y, t));
    if (round != Format::kF32) kernels.round(Row(y, t), C, round);
  });
}

void TakeRows(Context& context, const Tensor& x, absl::Span<const int32_t> rows, const Tensor& y) {
  const int64_t C = x.dim(1);
  ParallelRows(context, y.dim(0), C, [&](int64_t i) { std::copy_n(Row(x, rows[i]), C, Row(y, i)); });
}

void ScatterInts(Context&, absl::Span<const int32_t> indices, absl::Span<const int32_t> values, const Tensor& to) {
  for (size_t i = 0; i < indices.size(); ++i) to.data<int32_t>()[indices[i]] = values[i];
}

}  // namespace cairn::cpu
