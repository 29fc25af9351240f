// Sampling over ranks: the tokens of one rank that has the whole vocabulary.
#include "parallel/shard/parallel_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <random>
#include <vector>

#include "kernels/core/status_macros.h"
#include "kernels/ops/sample.h"
#include "parallel/comm/thread_channel.h"
#include "parallel/shard/shard.h"

namespace cairn {
namespace {

struct Problem {
  int64_t rows, vocab;
  std::vector<float> logits, inverse_temperature;
  std::vector<int64_t> fractions;

  Problem(int64_t rows, int64_t vocab, bool greedy) : rows(rows), vocab(vocab) {
    std::mt19937_64 rng(static_cast<uint64_t>(vocab));
    std::normal_distribution<float> normal(0, 3);
    for (int64_t i = 0; i < rows * vocab; ++i) logits.push_back(normal(rng));
    for (int64_t m = 0; m < rows; ++m) {
      inverse_temperature.push_back(greedy || m % 3 == 0 ? 0.0f : 0.2f * static_cast<float>(m));
      fractions.push_back(static_cast<int64_t>(rng()));
    }
  }

  bool any_drawn() const {
    return std::any_of(inverse_temperature.begin(), inverse_temperature.end(), [](float t) { return t != 0; });
  }
};

// Every rank's tokens.
std::vector<std::vector<int64_t>> TokensOf(Problem& problem, int tp) {
  std::vector<std::vector<int64_t>> tokens(tp, std::vector<int64_t>(problem.rows, -7));
  const auto results = RunThreadRanks(tp, [&](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(auto comm, world.SplitCommunicator(0, world.rank()));
    const auto context = Context::Cpu(1, DType::kFloat32);
    const Range own = VocabShard(problem.vocab, tp, world.rank());
    const Tensor logits =
        Tensor(problem.logits.data(), DType::kFloat32, {problem.rows, problem.vocab}).Columns(own.begin, own.end);
    const SampleRows rows = {
        .inverse_temperature = Tensor(problem.inverse_temperature.data(), DType::kFloat32, {problem.rows}),
        .fractions = Tensor(problem.fractions.data(), DType::kInt64, {problem.rows}),
        .any_drawn = problem.any_drawn()};
    std::vector<int64_t> words(SampleScratchWords(problem.rows, problem.vocab, tp), -3);
    return VocabParallelSample(*context, *comm, logits, problem.vocab, rows,
                               Tensor(words.data(), DType::kInt64, {static_cast<int64_t>(words.size())}),
                               Tensor(tokens[world.rank()].data(), DType::kInt64, {problem.rows}));
  });
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
  return tokens;
}

TEST(ParallelSampleTest, EveryRankHasTheTokensOfOneRank) {
  for (const int64_t vocab :
       {int64_t{5}, int64_t{311}, 2 * kSampleChunk + 100}) {  // of 5 tokens, 4 ranks leave one none
    for (const bool greedy : {false, true}) {
      Problem problem(9, vocab, greedy);
      const std::vector<int64_t> whole = TokensOf(problem, 1)[0];
      for (const int64_t token : whole) {
        EXPECT_GE(token, 0);
        EXPECT_LT(token, vocab);
      }
      for (const int tp : {2, 3, 4}) {
        for (const std::vector<int64_t>& tokens : TokensOf(problem, tp))
          EXPECT_EQ(tokens, whole) << vocab << ", tp " << tp;
      }
    }
  }
}

}  // namespace
}  // namespace cairn
