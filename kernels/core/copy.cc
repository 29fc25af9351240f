#include "kernels/core/copy.h"

#include <cstring>

#include "kernels/core/check.h"
#if CAIRN_CUDA
#include "kernels/cuda/device_state.h"
#endif

namespace cairn {
namespace {

// A tensor as rows of bytes.
struct ByteRows {
  char* data;
  size_t rows, width, pitch;
};

// One row where the tensor is contiguous, if `join`.
ByteRows RowsOf(Context& context, const Tensor& tensor, bool join = true) {
  CAIRN_CHECK(tensor.device() == context.device(), "a copy of a tensor of another device");
  const size_t element = DTypeSize(tensor.dtype());
  const size_t width = static_cast<size_t>(tensor.row_elements()) * element;
  char* data = static_cast<char*>(tensor.raw());
  if (join && tensor.is_contiguous()) return {data, 1, tensor.size_bytes(), tensor.size_bytes()};
  return {data, static_cast<size_t>(tensor.dim(0)), width, static_cast<size_t>(tensor.row_stride()) * element};
}

}  // namespace

void CopyFromHost(Context& context, const void* from, const Tensor& to) {
  const ByteRows rows = RowsOf(context, to);
#if CAIRN_CUDA
  if (!context.device().is_cpu()) return context.cuda().CopyIn(rows.data, rows.pitch, from, rows.width, rows.rows);
#endif
  for (size_t i = 0; i < rows.rows; ++i) {
    std::memcpy(rows.data + i * rows.pitch, static_cast<const char*>(from) + i * rows.width, rows.width);
  }
}

void CopyTensor(Context& context, const Tensor& from, const Tensor& to) {
  CAIRN_CHECK(from.dtype() == to.dtype() && from.dim(0) == to.dim(0) && from.row_elements() == to.row_elements(),
              "a copy between tensors of different shapes or types");
  const bool join = from.is_contiguous() && to.is_contiguous();
  const ByteRows source = RowsOf(context, from, join), target = RowsOf(context, to, join);
  if (from.size_bytes() == 0) return;
#if CAIRN_CUDA
  if (!context.device().is_cpu()) {
    return context.cuda().CopyWithin(target.data, target.pitch, source.data, source.pitch, source.width, source.rows);
  }
#endif
  context.threads().ParallelFor(static_cast<int64_t>(source.rows), [&](int64_t row, int) {
    std::memcpy(target.data + row * target.pitch, source.data + row * source.pitch, source.width);
  });
}

void CopyToHost(Context& context, const Tensor& from, void* to) {
  const ByteRows rows = RowsOf(context, from);
#if CAIRN_CUDA
  if (!context.device().is_cpu()) return context.cuda().CopyOut(to, rows.data, rows.pitch, rows.width, rows.rows);
#endif
  for (size_t i = 0; i < rows.rows; ++i) {
    std::memcpy(static_cast<char*>(to) + i * rows.width, rows.data + i * rows.pitch, rows.width);
  }
}

void ClearTensor(Context& context, const Tensor& tensor) {
  const ByteRows rows = RowsOf(context, tensor);
  if (tensor.size_bytes() == 0) return;
#if CAIRN_CUDA
  if (!context.device().is_cpu()) return context.cuda().Clear(rows.data, rows.pitch, rows.width, rows.rows);
#endif
  for (size_t i = 0; i < rows.rows; ++i) std::memset(rows.data + i * rows.pitch, 0, rows.width);
}

}  // namespace cairn
