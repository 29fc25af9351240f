#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/rounding.h"

namespace cairn::cpu {
namespace {

// One row times one panel. Each output is the chain fma(x[k], w[k], sum) over ascending k: the order that every faster
// version keeps.
void RowTimesPanel(const float* x, DType dtype, const uint8_t* panel, int64_t cols_k, float* sums) {
  std::fill_n(sums, kPanelColumns, 0.0f);
  for (int64_t k = 0; k < cols_k; ++k) {
    for (int n = 0; n < kPanelColumns; ++n)
      sums[n] = std::fma(x[k], LoadAs(dtype, panel, PanelIndex(dtype, k, n)), sums[n]);
  }
}

}  // namespace

void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y, const MatMulOptions& options) {
  const DType rounding = options.round_output ? context.activation_dtype() : DType::kFloat32;
  context.threads().ParallelFor(NumPanels(w.rows()), [&](int64_t p, int) {
    const uint8_t* panel = w.data() + p * PanelBytes(w.dtype(), w.cols());
    const int64_t n_begin = p * kPanelColumns, n_end = std::min(n_begin + kPanelColumns, w.rows());
    for (int64_t m = 0; m < x.dim(0); ++m) {
      float sums[kPanelColumns];
      RowTimesPanel(x.data<float>() + m * x.row_stride(), w.dtype(), panel, w.cols(), sums);
      float* out = y.data<float>() + m * y.row_stride();
      for (int64_t n = n_begin; n < n_end; ++n) {
        const float sum = sums[n - n_begin];
        out[n] = RoundTo(rounding, options.bias != nullptr ? sum + options.bias[n] : sum);
      }
    }
  });
}

void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y) {
  context.threads().ParallelFor(ids.dim(0), [&](int64_t t, int) {
    const int64_t row = ids.data<int32_t>()[t] - row_begin;
    float* out = y.data<float>() + t * y.row_stride();
    if (row < 0 || row >= table.rows()) {
      std::fill_n(out, table.cols(), 0.0f);
      return;
    }
    const uint8_t* panel = table.data() + row / kPanelColumns * PanelBytes(table.dtype(), table.cols());
    const int column = static_cast<int>(row % kPanelColumns);
    for (int64_t k = 0; k < table.cols(); ++k) {
      out[k] = RoundTo(context.activation_dtype(), LoadAs(table.dtype(), panel, PanelIndex(table.dtype(), k, column)));
    }
  });
}

}  // namespace cairn::cpu
