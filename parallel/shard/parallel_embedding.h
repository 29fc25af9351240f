// Vocabulary-parallel embedding and LM head: each rank holds the rows VocabShard gives it.
#ifndef CAIRN_PARALLEL_SHARD_PARALLEL_EMBEDDING_H_
#define CAIRN_PARALLEL_SHARD_PARALLEL_EMBEDDING_H_

#include "absl/status/status.h"
#include "kernels/core/context.h"
#include "kernels/ops/matmul.h"
#include "parallel/comm/communicator.h"
#include "parallel/shard/shard.h"

namespace cairn {

// y [T, C] on every rank: own rows, summed over ranks (all but one term are zero, so the sum is exact).
absl::Status VocabParallelEmbed(Context& context, Communicator& tp, const PackedMatrix& table, const Range& vocab,
                                const Tensor& ids, const Tensor& y);

// This rank's part of the logits, x [M, C] times its rows of the head: [M, its tokens] f32, rows may be strided. It
// lies in `logits` [M, vocab] where tp is 1, else in `scratch`, of at least M * ceil(vocab / tp) * (tp + 1) floats.
Tensor VocabShardLogits(Context& context, const Communicator& tp, const PackedMatrix& head, int64_t vocab_size,
                        const Tensor& x, const Tensor& scratch, const Tensor& logits);

// The first rows of every rank's part (what VocabShardLogits has returned), side by side: logits [rows, vocab] f32 on
// tp rank 0 alone (the others' `logits` has a shape and no more). Where tp is 1 they are there already.
absl::Status GatherLogits(Context& context, Communicator& tp, int64_t vocab_size, const Tensor& part,
                          const Tensor& scratch, const Tensor& logits);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_SHARD_PARALLEL_EMBEDDING_H_
