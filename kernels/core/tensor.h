// A view of row-major elements: pointer, type, device, shape. It owns nothing (Buffer does), copies freely. Rows of the
// first dimension may lie apart (row_stride: a column slice of a wider matrix); within a row elements are contiguous.
#ifndef CAIRN_KERNELS_CORE_TENSOR_H_
#define CAIRN_KERNELS_CORE_TENSOR_H_

#include <array>
#include <cstdint>
#include <initializer_list>

#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/core/device.h"
#include "kernels/core/dtype.h"

namespace cairn {

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kInt64;
};

class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = {})
      : data_(data), dtype_(dtype), device_(device), rank_(static_cast<int>(shape.size())) {
    CAIRN_CHECK(rank_ <= kMaxRank);
    int i = 0;
    for (int64_t dim : shape) shape_[i++] = dim;
    row_stride_ = row_elements();
  }

  void* raw() const { return data_; }
  // The elements as T; float also serves nothing but kFloat32 (16-bit types are read as uint16_t through raw()).
  template <typename T>
  T* data() const {
    CAIRN_CHECK(dtype_ == DTypeOf<T>::value, "tensor holds ", DTypeName(dtype_));
    return static_cast<T*>(data_);
  }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int rank() const { return rank_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= shape_[i];
    return n;
  }
  int64_t row_elements() const {
    int64_t n = 1;
    for (int i = 1; i < rank_; ++i) n *= shape_[i];
    return n;
  }
  int64_t row_stride() const { return row_stride_; }  // elements from one row to the next
  bool is_contiguous() const { return row_stride_ == row_elements() || shape_[0] <= 1; }
  // Of the elements, without what lies between the rows.
  size_t size_bytes() const { return static_cast<size_t>(num_elements()) * DTypeSize(dtype_); }

  // Rows [begin, end) of the first dimension.
  Tensor Rows(int64_t begin, int64_t end) const {
    CAIRN_CHECK(rank_ >= 1 && 0 <= begin && begin <= end && end <= shape_[0], begin, "..", end, " of ", shape_[0]);
    Tensor t = *this;
    t.data_ = static_cast<char*>(data_) + static_cast<size_t>(begin * row_stride_) * DTypeSize(dtype_);
    t.shape_[0] = end - begin;
    return t;
  }
  // Columns [begin, end) of a matrix [rows, columns]: a strided view.
  Tensor Columns(int64_t begin, int64_t end) const {
    CAIRN_CHECK(rank_ == 2 && 0 <= begin && begin <= end && end <= shape_[1], begin, "..", end, " of ", shape_[1]);
    Tensor t = *this;
    t.data_ = static_cast<char*>(data_) + static_cast<size_t>(begin) * DTypeSize(dtype_);
    t.shape_[1] = end - begin;
    return t;
  }
  // Splits each row: [rows, a * b] as [rows, a, b]; keeps the row stride.
  Tensor SplitRows(int64_t a, int64_t b) const {
    CAIRN_CHECK(rank_ >= 1 && row_elements() == a * b, row_elements(), " != ", a, " x ", b);
    Tensor t = *this;
    t.rank_ = 3;
    t.shape_ = {shape_[0], a, b, 0};
    return t;
  }
  // The same elements under another shape; contiguous views only.
  Tensor Reshape(std::initializer_list<int64_t> shape) const {
    Tensor t(data_, dtype_, shape, device_);
    CAIRN_CHECK(is_contiguous() && t.num_elements() == num_elements());
    return t;
  }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  Device device_;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_ = {};
  int64_t row_stride_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_TENSOR_H_
