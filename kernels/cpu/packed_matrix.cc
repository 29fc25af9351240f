// Packing of weights into panels of 16 output columns (layout: kernels/ops/matmul.h).
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/rounding.h"
#include "kernels/ops/matmul.h"

namespace cairn {

absl::StatusOr<PackedMatrix> PackedMatrix::Create(Device device, DType dtype, int64_t rows_n, int64_t cols_k) {
  CAIRN_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16, "weights in ",
              DTypeName(dtype));
  CAIRN_CHECK(rows_n >= 0 && cols_k >= 0, rows_n, " x ", cols_k);
  PackedMatrix matrix;
  matrix.dtype_ = dtype;
  matrix.rows_ = rows_n;
  matrix.cols_ = cols_k;
  const size_t bytes = static_cast<size_t>(cpu::NumPanels(rows_n)) * cpu::PanelBytes(dtype, cols_k);
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(device, bytes);
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(), absl::StrCat("weight matrix [", rows_n, ", ", cols_k, "] ",
                                                             DTypeName(dtype), ": ", buffer.status().message()));
  }
  matrix.buffer_ = std::move(buffer).value();
  return matrix;
}

void PackedMatrix::PackRows(int64_t row_begin, int64_t num_rows, const void* source, DType source_dtype) {
  CAIRN_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= rows_, "rows ", row_begin, " + ", num_rows,
              " of ", rows_);
  for (int64_t i = 0; i < num_rows; ++i) {
    const int64_t row = row_begin + i;
    uint8_t* panel = buffer_.data() + row / cpu::kPanelColumns * cpu::PanelBytes(dtype_, cols_);
    const uint8_t* line = static_cast<const uint8_t*>(source) + i * cols_ * DTypeSize(source_dtype);
    for (int64_t k = 0; k < cols_; ++k) {
      const size_t at = cpu::PanelIndex(dtype_, k, static_cast<int>(row % cpu::kPanelColumns));
      if (source_dtype == dtype_) {
        std::memcpy(panel + at * DTypeSize(dtype_), line + k * DTypeSize(dtype_), DTypeSize(dtype_));
      } else {
        cpu::StoreAs(dtype_, panel, at, cpu::LoadAs(source_dtype, line, k));
      }
    }
  }
}

}  // namespace cairn
