#include "parallel/shard/parallel_sample.h"

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/sample.h"
#include "parallel/shard/shard.h"

namespace cairn {
namespace {

int64_t ChunksOf(int64_t vocab_size, int tp) { return NumSampleChunks(VocabShard(vocab_size, tp, 0).size()); }

}  // namespace

int64_t SampleScratchWords(int64_t rows, int64_t vocab_size, int tp) {
  return rows * (1 + ChunksOf(vocab_size, tp) * (tp == 1 ? 1 : tp + 1));
}

absl::Status VocabParallelSample(Context& context, Communicator& tp, const Tensor& logits, int64_t vocab_size,
                                 const SampleRows& rows, const Tensor& scratch, const Tensor& tokens) {
  const Range vocab = VocabShard(vocab_size, tp.size(), tp.rank());
  CAIRN_CHECK(logits.dim(1) == vocab.size(), logits.dim(1), " logits for ", vocab.size(), " tokens");
  const int64_t M = logits.dim(0), chunks = ChunksOf(vocab_size, tp.size());
  CAIRN_CHECK(scratch.num_elements() >= SampleScratchWords(M, vocab_size, tp.size()), "scratch of ",
              scratch.num_elements(), " words for ", M, " rows");
  int64_t used = 0;
  const auto take = [&](int64_t words) {
    used += words;
    return scratch.Rows(used - words, used);
  };
  const Tensor best = take(M), own = take(M * chunks).Reshape({M, chunks});
  const Tensor totals =
      tp.size() == 1 ? own.Reshape({1, M, chunks}) : take(tp.size() * M * chunks).Reshape({tp.size(), M, chunks});

  BestTokens(context, logits, vocab.begin, best);
  if (tp.size() > 1) CAIRN_RETURN_IF_ERROR(tp.AllReduce(best, ReduceOp::kMax));
  if (rows.any_drawn) {
    SampleTotals(context, logits, best, rows.inverse_temperature, own);
    if (tp.size() > 1) CAIRN_RETURN_IF_ERROR(tp.AllGather(own, totals));
  }
  SampleTokens(context, logits, vocab.begin, tp.rank(), best, rows.inverse_temperature, rows.fractions, totals, tokens);
  // A greedy row's token is known to all; that of a drawn one, to its owner alone.
  if (!rows.any_drawn || tp.size() == 1) return absl::OkStatus();
  return tp.AllReduce(tokens, ReduceOp::kMax);
}

}  // namespace cairn
