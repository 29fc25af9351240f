// Packing of weights into the layout of a device (kernels/ops/matmul.h).
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/float8.h"
#include "kernels/core/int8.h"
#include "kernels/core/read_element.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/panels.h"
#include "kernels/ops/matmul.h"
#include "kernels/ops/quantize.h"

namespace cairn {
namespace {

template <DType kTo>
auto Convert(float value) {
  if constexpr (kTo == DType::kBFloat16) {
    return FloatToBFloat16(value);
  } else if constexpr (kTo == DType::kFloat16) {
    return FloatToFloat16(value);
  } else {
    return value;
  }
}

// Writes a row of K values: into column `column` of a panel, or (kPanel false) one after the other.
template <DType kTo, DType kFrom, bool kPanel>
void PackRow(const uint8_t* source, int64_t K, int column, uint8_t* target) {
  using Element = decltype(Convert<kTo>(0.0f));
  Element* to = reinterpret_cast<Element*>(target);
  for (int64_t k = 0; k < K; ++k) {
    Element& element = to[kPanel ? cpu::PanelIndex(cpu::FormatOf(kTo), k, column) : k];
    if constexpr (kTo == kFrom) {  // bit for bit, NaN payloads too
      element = reinterpret_cast<const Element*>(source)[k];
    } else {
      element = Convert<kTo>(ReadElement(kFrom, source, k));
    }
  }
}

using PackFunction = void (*)(const uint8_t* source, int64_t K, int column, uint8_t* target);

template <DType kTo, bool kPanel>
PackFunction PackerFrom(DType from) {
  if (from == DType::kFloat32) return PackRow<kTo, DType::kFloat32, kPanel>;
  if (from == DType::kBFloat16) return PackRow<kTo, DType::kBFloat16, kPanel>;
  CAIRN_CHECK(from == DType::kFloat16, "weights from ", DTypeName(from));
  return PackRow<kTo, DType::kFloat16, kPanel>;
}

template <bool kPanel>
PackFunction Packer(DType to, DType from) {
  if (to == DType::kFloat32) return PackerFrom<DType::kFloat32, kPanel>(from);
  if (to == DType::kBFloat16) return PackerFrom<DType::kBFloat16, kPanel>(from);
  return PackerFrom<DType::kFloat16, kPanel>(from);
}

// Elements of a row on a GPU.
int64_t PaddedRow(DType dtype, int64_t cols_k) {
  const int64_t unit = 16 / static_cast<int64_t>(DTypeSize(dtype));
  return (cols_k + unit - 1) / unit * unit;
}

bool HasScales(DType dtype) { return dtype == DType::kFloat8E4M3 || dtype == DType::kInt8; }

// A row as 8-bit numbers; returns its scale.
float QuantizeRow(DType dtype, const float* row, int64_t n, uint8_t* codes) {
  return dtype == DType::kInt8 ? RowToInt8(row, n, reinterpret_cast<int8_t*>(codes)) : RowToFloat8(row, n, codes);
}

// Rows on a GPU.
int64_t PaddedRows(DType dtype, int64_t rows_n) { return dtype == DType::kFloat8E4M3 ? Float8Padded(rows_n) : rows_n; }

// Zeroed, with an error that says for what.
absl::StatusOr<Buffer> AllocateZeros(Device device, DType dtype, int64_t rows_n, int64_t cols_k, int64_t bytes) {
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(device, static_cast<size_t>(bytes));
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(), absl::StrCat("weights [", rows_n, ", ", cols_k, "] in ",
                                                             DTypeName(dtype), ": ", buffer.status().message()));
  }
  if (!device.is_cpu()) buffer->Clear();  // a CPU's memory is zero already
  return buffer;
}

}  // namespace

absl::StatusOr<PackedMatrix> PackedMatrix::Create(Device device, DType dtype, int64_t rows_n, int64_t cols_k) {
  CAIRN_CHECK(rows_n >= 0 && cols_k >= 0, rows_n, " x ", cols_k);
  CAIRN_CHECK(device.is_cpu() || dtype != DType::kInt8, "weights in int8 are for the CPU");
  PackedMatrix matrix;
  matrix.dtype_ = dtype;
  matrix.rows_ = rows_n;
  matrix.cols_ = cols_k;
  const int64_t bytes =
      device.is_cpu() ? cpu::NumPanels(rows_n) * cpu::PanelBytes(cpu::FormatOf(dtype), cols_k)
                      : PaddedRows(dtype, rows_n) * PaddedRow(dtype, cols_k) * static_cast<int64_t>(DTypeSize(dtype));
  absl::StatusOr<Buffer> buffer = AllocateZeros(device, dtype, rows_n, cols_k, bytes);
  if (!buffer.ok()) return buffer.status();
  matrix.buffer_ = std::move(buffer).value();
  if (HasScales(dtype)) {
    absl::StatusOr<Buffer> scales =
        AllocateZeros(device, dtype, rows_n, cols_k, PaddedRows(dtype, rows_n) * static_cast<int64_t>(sizeof(float)));
    if (!scales.ok()) return scales.status();
    matrix.scales_ = std::move(scales).value();
  }
  return matrix;
}

void PackedMatrix::PackRows(int64_t row_begin, int64_t num_rows, const void* source, DType source_dtype) {
  CAIRN_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= rows_, "rows ", row_begin, " + ", num_rows,
              " of ", rows_);
  const uint8_t* from = static_cast<const uint8_t*>(source);
  const int64_t line_bytes = cols_ * static_cast<int64_t>(DTypeSize(source_dtype));
  if (HasScales(dtype_)) {
    const PackFunction widen = Packer<false>(DType::kFloat32, source_dtype);
    std::vector<float> row(static_cast<size_t>(cols_));
    std::vector<uint8_t> codes(static_cast<size_t>(num_rows * cols_));
    std::vector<float> scales(static_cast<size_t>(num_rows));
    for (int64_t i = 0; i < num_rows; ++i) {
      widen(from + i * line_bytes, cols_, 0, reinterpret_cast<uint8_t*>(row.data()));
      scales[i] = QuantizeRow(dtype_, row.data(), cols_, codes.data() + i * cols_);
    }
    return PackQuantizedRows(row_begin, num_rows, codes.data(), scales.data());
  }
  if (device().is_cpu()) {
    const PackFunction pack = Packer<true>(dtype_, source_dtype);
    const int64_t panel_bytes = cpu::PanelBytes(cpu::FormatOf(dtype_), cols_);
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t row = row_begin + i;
      pack(from + i * line_bytes, cols_, static_cast<int>(row % cpu::kPanelColumns),
           buffer_.data() + row / cpu::kPanelColumns * panel_bytes);
    }
    return;
  }
  const PackFunction convert = Packer<false>(dtype_, source_dtype);
  const size_t row_bytes = static_cast<size_t>(row_stride()) * DTypeSize(dtype_);
  if (source_dtype == dtype_ && row_bytes == static_cast<size_t>(line_bytes)) {  // as they are
    return buffer_.Fill(from, static_cast<size_t>(num_rows) * row_bytes, static_cast<size_t>(row_begin) * row_bytes);
  }
  std::vector<uint8_t> rows(static_cast<size_t>(num_rows) * row_bytes);
  for (int64_t i = 0; i < num_rows; ++i) convert(from + i * line_bytes, cols_, 0, rows.data() + i * row_bytes);
  buffer_.Fill(rows.data(), rows.size(), static_cast<size_t>(row_begin) * row_bytes);
}

void PackedMatrix::PackQuantizedRows(int64_t row_begin, int64_t num_rows, const uint8_t* codes, const float* scales) {
  CAIRN_CHECK(HasScales(dtype_), "rows with scales into ", DTypeName(dtype_));
  CAIRN_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= rows_, "rows ", row_begin, " + ", num_rows,
              " of ", rows_);
  scales_.Fill(scales, static_cast<size_t>(num_rows) * sizeof(float), static_cast<size_t>(row_begin) * sizeof(float));
  if (device().is_cpu()) {
    const cpu::Format format = cpu::FormatOf(dtype_);
    const int64_t panel_bytes = cpu::PanelBytes(format, cols_);
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t row = row_begin + i;
      uint8_t* const panel = buffer_.data() + row / cpu::kPanelColumns * panel_bytes;
      const int column = static_cast<int>(row % cpu::kPanelColumns);
      for (int64_t k = 0; k < cols_; ++k) panel[cpu::PanelIndex(format, k, column)] = codes[i * cols_ + k];
    }
    return;
  }
  const int64_t stride = row_stride();
  std::vector<uint8_t> rows(static_cast<size_t>(num_rows * stride));
  for (int64_t i = 0; i < num_rows; ++i) std::copy_n(codes + i * cols_, cols_, rows.data() + i * stride);
  buffer_.Fill(rows.data(), rows.size(), static_cast<size_t>(row_begin * stride));
}

int64_t PackedMatrix::row_stride() const { return PaddedRow(dtype_, cols_); }

}  // namespace cairn
