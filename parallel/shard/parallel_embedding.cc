#include "parallel/shard/parallel_embedding.h"

#include "kernels/core/check.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// gathered [tp, M, width] to logits [M, vocab]: rank r's columns start at r * width, the last ranks' padding is
// dropped.
void JoinColumns(Context& context, const Tensor& gathered, const Tensor& logits) {
  const int tp = static_cast<int>(gathered.dim(0));
  for (int rank = 0; rank < tp; ++rank) {
    const Range columns = VocabShard(logits.dim(1), tp, rank);
    if (columns.size() == 0) break;
    const Tensor part = gathered.Rows(rank, rank + 1).Reshape({gathered.dim(1), gathered.dim(2)});
    CopyTensor(context, part.Columns(0, columns.size()), logits.Columns(columns.begin, columns.end));
  }
}

// Sums y over ranks of which all but one hold zeros, bit by bit: communicators add float32 and int64.
absl::Status SumDisjoint(Communicator& tp, const Tensor& y) {
  if (y.dtype() == DType::kFloat32) return tp.AllReduce(y, ReduceOp::kSum);
  CAIRN_CHECK(y.is_contiguous() && y.size_bytes() % sizeof(int64_t) == 0, "rows of ", y.dim(1), " ",
              DTypeName(y.dtype()), " are not whole words of 64 bits");
  const Tensor words(y.raw(), DType::kInt64, {static_cast<int64_t>(y.size_bytes() / sizeof(int64_t))}, y.device());
  return tp.AllReduce(words, ReduceOp::kSum);
}

}  // namespace

absl::Status VocabParallelEmbed(Context& context, Communicator& tp, const PackedMatrix& table, const Range& vocab,
                                const Tensor& ids, const Tensor& y) {
  CAIRN_CHECK(table.rows() == vocab.size(), "a table of ", table.rows(), " rows for ", vocab.size(), " tokens");
  Embedding(context, ids, table, vocab.begin, y);
  return tp.size() == 1 ? absl::OkStatus() : SumDisjoint(tp, y);
}

Tensor VocabShardLogits(Context& context, const Communicator& tp, const PackedMatrix& head, int64_t vocab_size,
                        const Tensor& x, const Tensor& scratch, const Tensor& logits) {
  const MatMulOptions exact = {.bias = {}, .round_output = false};
  if (tp.size() == 1) {
    MatMul(context, x, head, logits, exact);
    return logits;
  }
  // Every rank gathers the same width, so the last ranks send padding.
  const int64_t rows = x.dim(0), width = VocabShard(vocab_size, tp.size(), 0).size();
  CAIRN_CHECK(scratch.is_contiguous() && scratch.num_elements() >= rows * width * (tp.size() + 1), "scratch of ",
              scratch.num_elements(), " floats for ", rows, " rows of ", width, " on ", tp.size(), " ranks");
  const int64_t own = VocabShard(vocab_size, tp.size(), tp.rank()).size();
  CAIRN_CHECK(head.rows() == own, "a head of ", head.rows(), " rows for ", own, " tokens");
  const Tensor part = scratch.Rows(0, rows * width).Reshape({rows, width}).Columns(0, own);
  if (own > 0) MatMul(context, x, head, part, exact);
  return part;
}

absl::Status GatherLogits(Context& context, Communicator& tp, int64_t vocab_size, const Tensor& part,
                          const Tensor& scratch, const Tensor& logits) {
  if (tp.size() == 1) return absl::OkStatus();
  const int64_t rows = logits.dim(0), width = VocabShard(vocab_size, tp.size(), 0).size();
  const int64_t begin = part.dim(0) * width;  // behind all of the part
  CAIRN_CHECK(rows <= part.dim(0), rows, " of ", part.dim(0), " rows");
  const Tensor gathered = scratch.Rows(begin, begin + rows * width * tp.size()).Reshape({tp.size(), rows, width});
  CAIRN_RETURN_IF_ERROR(tp.Gather(scratch.Rows(0, rows * width).Reshape({rows, width}), gathered, /*root=*/0));
  if (tp.rank() == 0) JoinColumns(context, gathered, logits);
  return absl::OkStatus();
}

}  // namespace cairn
