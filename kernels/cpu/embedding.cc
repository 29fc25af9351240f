#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

// Column `column` of a panel as a row of n floats.
void GatherColumn(Format format, const uint8_t* panel, int column, int64_t n, float* y) {
  for (int64_t k = 0; k < n; ++k) {
    const int64_t at = PanelIndex(format, k, column);
    if (format == Format::kF32) {
      y[k] = reinterpret_cast<const float*>(panel)[at];
    } else if (format == Format::kBf16) {
      y[k] = BFloat16ToFloat(reinterpret_cast<const uint16_t*>(panel)[at]);
    } else {
      y[k] = Float16ToFloat(reinterpret_cast<const uint16_t*>(panel)[at]);
    }
  }
}

}  // namespace

void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y) {
  const Format format = FormatOf(table.dtype()), round = ActivationFormat(context);
  const int64_t C = table.cols();
  ParallelRows(context, ids.dim(0), C, [&](int64_t t) {
    const int64_t row = ids.data<int32_t>()[t] - row_begin;
    float* out = y.data<float>() + t * y.row_stride();
    if (row < 0 || row >= table.rows()) {
      std::fill_n(out, C, 0.0f);
      return;
    }
    GatherColumn(format, table.data() + row / kPanelColumns * PanelBytes(format, C),
                 static_cast<int>(row % kPanelColumns), C, out);
    if (round != Format::kF32) context.cpu_kernels().round(out, C, round);
  });
}

}  // namespace cairn::cpu
