// Tokens from logits that stay divided over the tp group (kernels/ops/sample.h): a reduction finds the best token of
// each row, and rows that are drawn need two more messages, each a few words a row.
#ifndef CAIRN_PARALLEL_SHARD_PARALLEL_SAMPLE_H_
#define CAIRN_PARALLEL_SHARD_PARALLEL_SAMPLE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "parallel/comm/communicator.h"

namespace cairn {

// How each row's token is chosen; the same on every rank.
struct SampleRows {
  Tensor inverse_temperature;  // [M] f32, 0: greedy
  Tensor fractions;            // [M] int64, the bits of 64-bit unsigned numbers
  bool any_drawn = true;       // is an inverse temperature not 0?
};

// Words of 64 bits that VocabParallelSample needs of its scratch for M rows.
int64_t SampleScratchWords(int64_t rows, int64_t vocab_size, int tp);

// tokens [M] int64 on every rank, from logits [M, V] f32 of this rank's part of the vocabulary (VocabShard), whose rows
// may be strided.
absl::Status VocabParallelSample(Context& context, Communicator& tp, const Tensor& logits, int64_t vocab_size,
                                 const SampleRows& rows, const Tensor& scratch, const Tensor& tokens);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_SHARD_PARALLEL_SAMPLE_H_
