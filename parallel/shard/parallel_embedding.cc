#include "parallel/shard/parallel_embedding.h"

#include <cstring>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// gathered [tp, M, width] to logits [M, vocab]: rank r's columns start at r * width, the last ranks' padding is
// dropped.
void JoinColumns(Context& context, const Tensor& gathered, const Tensor& logits) {
  const int tp = static_cast<int>(gathered.dim(0));
  const int64_t rows = gathered.dim(1), width = gathered.dim(2), vocab = logits.dim(1);
  const float* parts = gathered.data<float>();
  float* out = logits.data<float>();
  context.threads().ParallelFor(rows, [&](int64_t row, int) {
    for (int rank = 0; rank < tp; ++rank) {
      const Range columns = VocabShard(vocab, tp, rank);
      if (columns.size() == 0) break;
      std::memcpy(out + row * logits.row_stride() + columns.begin, parts + (rank * rows + row) * width,
                  static_cast<size_t>(columns.size()) * sizeof(float));
    }
  });
}

}  // namespace

absl::Status VocabParallelEmbed(Context& context, Communicator& tp, const PackedMatrix& table, const Range& vocab,
                                const Tensor& ids, const Tensor& y) {
  CAIRN_CHECK(table.rows() == vocab.size(), "a table of ", table.rows(), " rows for ", vocab.size(), " tokens");
  if (vocab.size() > 0) {
    Embedding(context, ids, table, vocab.begin, y);
  } else {
    for (int64_t row = 0; row < y.dim(0); ++row) {
      std::memset(y.data<float>() + row * y.row_stride(), 0, static_cast<size_t>(y.dim(1)) * sizeof(float));
    }
  }
  if (tp.size() == 1) return absl::OkStatus();
  return tp.AllReduce(y, ReduceOp::kSum);
}

absl::Status VocabParallelLogits(Context& context, Communicator& tp, const PackedMatrix& head, int64_t vocab_size,
                                 const Tensor& x, const Tensor& scratch, const Tensor& logits) {
  const MatMulOptions exact = {.bias = {}, .round_output = false};
  if (tp.size() == 1) {
    MatMul(context, x, head, logits, exact);
    return absl::OkStatus();
  }
  // Every rank gathers the same width, so the last ranks send padding.
  const int64_t rows = x.dim(0), width = VocabShard(vocab_size, tp.size(), 0).size();
  CAIRN_CHECK(scratch.is_contiguous() && scratch.num_elements() >= rows * width * (tp.size() + 1), "scratch of ",
              scratch.num_elements(), " floats for ", rows, " rows of ", width, " on ", tp.size(), " ranks");
  const int64_t own = VocabShard(vocab_size, tp.size(), tp.rank()).size();
  CAIRN_CHECK(head.rows() == own, "a head of ", head.rows(), " rows for ", own, " tokens");
  const Tensor part(scratch.data<float>(), DType::kFloat32, {rows, width});
  const Tensor gathered(scratch.data<float>() + rows * width, DType::kFloat32, {tp.size(), rows, width});
  if (own > 0) MatMul(context, x, head, part.Columns(0, own), exact);
  CAIRN_RETURN_IF_ERROR(tp.Gather(part, gathered, /*root=*/0));
  if (tp.rank() == 0) JoinColumns(context, gathered, logits);
  return absl::OkStatus();
}

}  // namespace cairn
