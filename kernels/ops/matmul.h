// y = x W^T (+ bias): every weight product of the model.
//
// With weights in E4M3 (8-bit floats, a scale for each row of W), x is brought into E4M3 as well, a scale for each row
// (kernels/core/float8.h), on every device:
//
//   y[m, n] = (sum over k of code(x)[m, k] code(W)[n, k]) * scale(W)[n] * scale(x)[m] (+ bias[n])
//
// in float32, rounded once. With weights in int8 (CPU only) x stays as it is, and scale(x) is 1. A shard of a row has
// scales of its own: where K is divided over ranks, the answer depends on the number of ranks (by the error of a
// rounding to E4M3, a sixteenth of each value at most).
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
// weights once, in order. bf16: [N/16][K/2][16][2] (pairs along K); f32, f16, E4M3 and int8: [N/16][K][16]; N and K are
// padded with zeros. CUDA: row-major, rows padded with zeros to a multiple of 16 bytes; of E4M3 their number too,
// to 16.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // An empty (zero) matrix of `dtype` (kFloat32, kBFloat16, kFloat16, kFloat8E4M3; kInt8 on CPU).
  static absl::StatusOr<PackedMatrix> Create(Device device, DType dtype, int64_t rows_n, int64_t cols_k);

  // Writes `num_rows` rows from row-major host memory [num_rows, K] of source_dtype into rows row_begin... Converts:
  // exact where the matrix's type holds the value, else rounded to nearest even; to 8 bits with a scale for each row.
  // Waits for the copy to a GPU.
  void PackRows(int64_t row_begin, int64_t num_rows, const void* source, DType source_dtype);
  // The same for rows that have 8 bits already: codes [num_rows, K] and scales [num_rows] of host memory, taken as they
  // are.
  void PackQuantizedRows(int64_t row_begin, int64_t num_rows, const uint8_t* codes, const float* scales);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  Device device() const { return buffer_.device(); }
  const uint8_t* data() const { return buffer_.data(); }
  int64_t row_stride() const;  // elements from row to row; on CUDA
  // Of E4M3 and int8: [N], on the matrix's device; padded with zeros like the rows. Else null.
  const float* scales() const { return reinterpret_cast<const float*>(scales_.data()); }
  size_t size_bytes() const { return buffer_.size_bytes() + scales_.size_bytes(); }
  bool empty() const { return rows_ == 0; }

 private:
  Buffer buffer_, scales_;
  DType dtype_ = DType::kFloat32;
  int64_t rows_ = 0, cols_ = 0;
};

struct MatMulOptions {
  Tensor bias = {};          // [N], of y's type; or none
  bool round_output = true;  // to the context's activation type; off for logits and for partial sums over ranks
};

// x [M, K] activations, w [N, K], y [M, N]: activations, float32 where the output is not rounded. Rows of x and y may
// be strided. x and y must not overlap. CUDA: w holds the activations' type, or E4M3.
void MatMul(Context& context, const Tensor& x, const PackedMatrix& w, const Tensor& y,
            const MatMulOptions& options = {});

// Takes the scratch memory now that products of up to max_rows rows with w will take, so that steps that are recorded
// (whose memory must stay where it is) never make it grow.
void ReserveMatMul(Context& context, const PackedMatrix& w, int64_t max_rows);

// Row lookup: y[i] = row ids[i] of `table` [V, C] for ids in [row_begin, row_begin + V), zeros for the others (they are
// another rank's). ids [T] int32, y [T, C] activations. Not for a table in 8 bits.
void Embedding(Context& context, const Tensor& ids, const PackedMatrix& table, int64_t row_begin, const Tensor& y);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_MATMUL_H_
