// From a weight source into the memory that the kernels use.
#include <algorithm>
#include <vector>

#include "engine/weights/weight_source.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::Status LoadPacked(WeightSource& source, const std::string& name, const std::vector<int64_t>& shape, Range rows,
                        Range columns, PackedMatrix& out, int64_t row_begin) {
  constexpr int64_t kPieceBytes = 4 << 20;  // large enough for the disk, small enough for the cache's outer level
  constexpr int64_t kPanelRows = 16;        // pieces end where PackedMatrix's panels do
  CAIRN_ASSIGN_OR_RETURN(const DType type, source.TypeOf(name));
  const int64_t row_bytes = columns.size() * static_cast<int64_t>(DTypeSize(type));
  if (row_bytes == 0 || rows.size() == 0) return absl::OkStatus();
  const int64_t piece_rows =
      std::min(rows.size(), std::max(kPieceBytes / row_bytes / kPanelRows, int64_t{1}) * kPanelRows);
  std::vector<uint8_t> piece(static_cast<size_t>(piece_rows * row_bytes));
  for (int64_t begin = rows.begin; begin < rows.end; begin += piece_rows) {
    const Range part = {begin, std::min(begin + piece_rows, rows.end)};
    CAIRN_RETURN_IF_ERROR(source.Read(name, shape, part, columns, piece.data()));
    out.PackRows(row_begin + (begin - rows.begin), part.size(), piece.data(), type);
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
  std::transform(bits.begin(), bits.end(), values.begin(), type == DType::kBFloat16 ? BFloat16ToFloat : Float16ToFloat);
  return values;
}

DType PackedTypeFor(DType stored, DType compute, Device device) {
  return device.is_cpu() && compute == DType::kFloat32 ? stored : compute;
}

}  // namespace cairn
