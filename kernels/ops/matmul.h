// y = x W^T (+ bias): every weight product of the model.
//
// Same answer whatever the neighbours: on CPU each output element is one fixed sum over K, whatever M, the row's place
// and the number of threads.
#ifndef CAIRN_KERNELS_OPS_MATMUL_H_
#define CAIRN_KERNELS_OPS_MATMUL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// W [N, K] in the layout that the device's matmul streams. CPU: panels of 16 output columns, so that decode reads the
// weights once, in order. bf16: [N/16][K/2][16][2] (pairs along K); f32 and f16: [N/16][K][16]; N and K are padded
// with zeros. CUDA: row-major, rows padded with zeros to a multiple of 16 bytes.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // An empty (zero) matrix of `dtype` (kFloat32, kBFloat16 or kFloat16).
  static absl::StatusOr<PackedMatrix> Create(Device device, DType dtype, int64_t rows_n, int64_t cols_k);

  // Writes `num_rows` rows from row-major host memory [num_rows, K] of source_dtype into rows row_begin... Converts:
  // exact where the matrix's type holds the value, else rounded to nearest even. Waits for the copy to a GPU.
  void PackRows(int64_t row_begin, int64_t num_rows, const void* source, DType source_dtype);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  Device device() const { return buffer_.device(); }
  const uint8_t* data() const { return buffer_.data(); }
  int64_t row_stride() const;  // elements from row to row; on CUDA
  size_t size_bytes() const { return buffer_.size_bytes(); }
  bool empty() const { return rows_ == 0; }

 private:
  Buffer buffer_;
  DType dtype_ = DType::kFloat32;
  int64_t rows_ = 0, cols_ = 0;
};

struct MatMulOptions {
  Tensor bias = {};          // [N], of y's type; or none
  bool round_output = true;  // to the context's activation type; off for logits and for partial sums over ranks
};

// x [M, K] activations, w [N, K], y [M, N]: activations, float32 where the output is not rounded. Rows of x and y may
// be strided. x and y must not overlap. CUDA: w holds the activations' type.
void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y,
            const MatMulOptions& options = {});

// Row lookup: y[i] = row ids[i] of `table` [V, C] for ids in [row_begin, row_begin + V), zeros for the others (they are
// another rank's). ids [T] int32, y [T, C] activations.
void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_MATMUL_H_
