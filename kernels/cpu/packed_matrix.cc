// Packing of weights into panels of 16 output columns (layout: kernels/ops/matmul.h).
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/panels.h"
#include "kernels/ops/matmul.h"

namespace cairn {
namespace {

float ReadAs(DType dtype, const void* data, int64_t i) {
  if (dtype == DType::kBFloat16) return BFloat16ToFloat(static_cast<const uint16_t*>(data)[i]);
  if (dtype == DType::kFloat16) return Float16ToFloat(static_cast<const uint16_t*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

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

// Writes a row of K values into one column of a panel.
template <DType kTo, DType kFrom>
void PackColumn(const uint8_t* source, int64_t K, int column, uint8_t* panel) {
  using Element = decltype(Convert<kTo>(0.0f));
  Element* to = reinterpret_cast<Element*>(panel);
  constexpr cpu::Format kFormat = kTo == DType::kBFloat16  ? cpu::Format::kBf16
                                  : kTo == DType::kFloat16 ? cpu::Format::kF16
                                                           : cpu::Format::kF32;
  for (int64_t k = 0; k < K; ++k) {
    Element& element = to[cpu::PanelIndex(kFormat, k, column)];
    if constexpr (kTo == kFrom) {  // bit for bit, NaN payloads too
      element = reinterpret_cast<const Element*>(source)[k];
    } else {
      element = Convert<kTo>(ReadAs(kFrom, source, k));
    }
  }
}

using PackFunction = void (*)(const uint8_t* source, int64_t K, int column, uint8_t* panel);

template <DType kTo>
PackFunction PackerFrom(DType from) {
  if (from == DType::kFloat32) return PackColumn<kTo, DType::kFloat32>;
  if (from == DType::kBFloat16) return PackColumn<kTo, DType::kBFloat16>;
  CAIRN_CHECK(from == DType::kFloat16, "weights from ", DTypeName(from));
  return PackColumn<kTo, DType::kFloat16>;
}

PackFunction Packer(DType to, DType from) {
  if (to == DType::kFloat32) return PackerFrom<DType::kFloat32>(from);
  if (to == DType::kBFloat16) return PackerFrom<DType::kBFloat16>(from);
  return PackerFrom<DType::kFloat16>(from);
}

}  // namespace

absl::StatusOr<PackedMatrix> PackedMatrix::Create(Device device, DType dtype, int64_t rows_n, int64_t cols_k) {
  CAIRN_CHECK(rows_n >= 0 && cols_k >= 0, rows_n, " x ", cols_k);
  PackedMatrix matrix;
  matrix.dtype_ = dtype;
  matrix.rows_ = rows_n;
  matrix.cols_ = cols_k;
  const int64_t bytes = cpu::NumPanels(rows_n) * cpu::PanelBytes(cpu::FormatOf(dtype), cols_k);
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(device, bytes);
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(), absl::StrCat("weights [", rows_n, ", ", cols_k, "] in ",
                                                             DTypeName(dtype), ": ", buffer.status().message()));
  }
  matrix.buffer_ = std::move(buffer).value();
  return matrix;
}

void PackedMatrix::PackRows(int64_t row_begin, int64_t num_rows, const void* source, DType source_dtype) {
  CAIRN_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= rows_, "rows ", row_begin, " + ", num_rows,
              " of ", rows_);
  const PackFunction pack = Packer(dtype_, source_dtype);
  const int64_t panel_bytes = cpu::PanelBytes(cpu::FormatOf(dtype_), cols_);
  const int64_t line_bytes = cols_ * static_cast<int64_t>(DTypeSize(source_dtype));
  for (int64_t i = 0; i < num_rows; ++i) {
    const int64_t row = row_begin + i;
    pack(static_cast<const uint8_t*>(source) + i * line_bytes, cols_, static_cast<int>(row % cpu::kPanelColumns),
         buffer_.data() + row / cpu::kPanelColumns * panel_bytes);
  }
}

}  // namespace cairn
