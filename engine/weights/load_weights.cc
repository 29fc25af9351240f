// From a weight source into the memory that the kernels use.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/check.h"
#include "kernels/core/read_element.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

absl::StatusOr<std::vector<float>> ReadFloats(WeightSource& source, const std::string& name,
                                              const std::vector<int64_t>& shape, Range rows, Range columns) {
  CAIRN_ASSIGN_OR_RETURN(const DType type, source.TypeOf(name));
  CAIRN_CHECK(type == DType::kFloat32 || type == DType::kBFloat16 || type == DType::kFloat16, DTypeName(type));
  std::vector<float> values(static_cast<size_t>(rows.size() * columns.size()));
  std::vector<uint8_t> stored(values.size() * DTypeSize(type));
  CAIRN_RETURN_IF_ERROR(source.Read(name, shape, rows, columns, stored.data()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = ReadElement(type, stored.data(), static_cast<int64_t>(i));
  return values;
}

// Of rows of an E4M3 matrix of `total_rows` rows: one each, or the same for all.
absl::StatusOr<std::vector<float>> LoadScales(WeightSource& source, const std::string& matrix, int64_t total_rows,
                                              Range rows) {
  const std::string name = absl::StrCat(matrix, "_scale");
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, source.ShapeOf(name));
  if (!IsScaleShape(shape, total_rows)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has shape ", ShapeText(shape), " for ", total_rows, " rows"));
  }
  const bool is_column = shape.size() == 2, one_for_all = shape.empty() || shape[0] == 1;
  const Range wanted = one_for_all ? Range{0, 1} : rows;
  CAIRN_ASSIGN_OR_RETURN(std::vector<float> scales, ReadFloats(source, name, shape, is_column ? wanted : Range{0, 1},
                                                               is_column ? Range{0, 1} : wanted));
  if (one_for_all) scales.assign(static_cast<size_t>(rows.size()), scales[0]);
  return scales;
}

}  // namespace

bool IsScaleShape(const std::vector<int64_t>& shape, int64_t rows) {
  if (shape.size() > 2 || (shape.size() == 2 && shape[1] != 1)) return false;
  return shape.empty() || shape[0] == 1 || shape[0] == rows;
}

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
  return ReadFloats(source, name, {size}, {0, 1}, slice);
}

DType PackedTypeFor(DType stored, DType compute, Device device) {
  return device.is_cpu() && compute == DType::kFloat32 ? stored : compute;
}

}  // namespace cairn
