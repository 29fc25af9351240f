// From a weight source into the memory that the kernels use.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

std::vector<float> Widened(DType type, const std::vector<uint16_t>& bits) {
  std::vector<float> values(bits.size());
  std::transform(bits.begin(), bits.end(), values.begin(), type == DType::kBFloat16 ? BFloat16ToFloat : Float16ToFloat);
  return values;
}

// Of rows of an E4M3 matrix of `total_rows` rows: one each, or the same for all.
absl::StatusOr<std::vector<float>> LoadScales(WeightSource& source, const std::string& matrix, int64_t total_rows,
                                              Range rows) {
  const std::string name = absl::StrCat(matrix, "_scale");
  CAIRN_ASSIGN_OR_RETURN(const DType type, source.TypeOf(name));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, source.ShapeOf(name));
  int64_t elements = 1;
  for (const int64_t dim : shape) elements *= dim;
  const bool is_column = shape.size() == 2 && shape[1] == 1;
  if (elements != 1 && (elements != total_rows || (shape.size() != 1 && !is_column))) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has shape ", ShapeText(shape), " for ", total_rows, " rows"));
  }
  const Range wanted = elements == 1 ? Range{0, 1} : rows;
  const Range read_rows = is_column ? wanted : Range{0, 1}, read_columns = is_column ? Range{0, 1} : wanted;
  std::vector<float> scales(static_cast<size_t>(wanted.size()));
  if (type == DType::kFloat32) {
    CAIRN_RETURN_IF_ERROR(source.Read(name, shape, read_rows, read_columns, scales.data()));
  } else {
    CAIRN_CHECK(type == DType::kBFloat16 || type == DType::kFloat16, DTypeName(type));
    std::vector<uint16_t> bits(scales.size());
    CAIRN_RETURN_IF_ERROR(source.Read(name, shape, read_rows, read_columns, bits.data()));
    scales = Widened(type, bits);
  }
  if (elements == 1) scales.assign(static_cast<size_t>(rows.size()), scales[0]);
  return scales;
}

}  // namespace

absl::Status LoadPacked(WeightSource& source, const std::string& name, const std::vector<int64_t>& shape, Range rows,
                        Range columns, PackedMatrix& out, int64_t row_begin) {
  constexpr int64_t kPieceBytes = 4 << 20;  // large enough for the disk, small enough for the cache's outer level
  constexpr int64_t kPanelRows = 16;        // pieces end where PackedMatrix's panels do
  CAIRN_ASSIGN_OR_RETURN(const DType type, source.TypeOf(name));
  const int64_t row_bytes = columns.size() * static_cast<int64_t>(DTypeSize(type));
  if (row_bytes == 0 || rows.size() == 0) return absl::OkStatus();
  const int64_t piece_rows =
      std::min(rows.size(), std::max(kPieceBytes / row_bytes / kPanelRows, int64_t{1}) * kPanelRows);
  std::vector<float> scales;
  if (type == DType::kFloat8E4M3) {
    CAIRN_ASSIGN_OR_RETURN(scales, LoadScales(source, name, shape[0], rows));
  }
  std::vector<uint8_t> piece(static_cast<size_t>(piece_rows * row_bytes));
  for (int64_t begin = rows.begin; begin < rows.end; begin += piece_rows) {
    const Range part = {begin, std::min(begin + piece_rows, rows.end)};
    CAIRN_RETURN_IF_ERROR(source.Read(name, shape, part, columns, piece.data()));
    const int64_t done = begin - rows.begin;
    if (type == DType::kFloat8E4M3) {
      out.PackQuantizedRows(row_begin + done, part.size(), piece.data(), scales.data() + done);
    } else {
      out.PackRows(row_begin + done, part.size(), piece.data(), type);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> LoadVector(WeightSource& source, const std::string& name, int64_t size,
                                              Range slice) {
  CAIRN_ASSIGN_OR_RETURN(const DType type, source.TypeOf(name));
  std::vector<float> values(static_cast<size_t>(slice.size()));
  if (type == DType::kFloat32) {
    CAIRN_RETURN_IF_ERROR(source.Read(name, {size}, {0, 1}, slice, values.data()));
    return values;
  }
  CAIRN_CHECK(type == DType::kBFloat16 || type == DType::kFloat16, DTypeName(type));
  std::vector<uint16_t> bits(values.size());
  CAIRN_RETURN_IF_ERROR(source.Read(name, {size}, {0, 1}, slice, bits.data()));
  return Widened(type, bits);
}

DType PackedTypeFor(DType stored, DType compute, Device device) {
  return device.is_cpu() && compute == DType::kFloat32 ? stored : compute;
}

}  // namespace cairn
