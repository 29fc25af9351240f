// Logits to tokens. In vLLM's order: log-probabilities of the raw logits, masks (min_tokens), penalties, temperature,
// min_p, top_k, top_p, draw. A row that is greedy, or has a temperature alone, needs no more than kernels/ops/sample.h
// does where the logits are; for the others whole rows of logits come to the host of one rank.
#ifndef CAIRN_ENGINE_RUNNER_SAMPLER_H_
#define CAIRN_ENGINE_RUNNER_SAMPLER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

class Sampler {
 public:
  Sampler(int max_sequences, int64_t vocab_size, int num_workers);

  void Open(const OpenSequence& open);
  void Close(int32_t sequence);

  struct Row {
    int32_t sequence = 0;
    int32_t position = 0;  // of the new token
  };
  // Whole rows of logits on the host; else the two numbers for kernels/ops/sample.h are enough. Either way the token is
  // the same.
  bool NeedsLogits(const Row& row) const;
  float InverseTemperature(const Row& row) const;  // 0: greedy
  uint64_t Fraction(const Row& row) const;

  // logits [rows, vocab] f32 on the host (changed in place); tokens[i] answers rows[i]. Rows are independent of each
  // other.
  void Sample(Context& context, const Tensor& logits, absl::Span<const Row> rows,
              std::vector<StepResult::Token>& tokens);

 private:
  struct State {
    OpenSequence spec;
    bool counts_tokens = false;
    absl::flat_hash_map<int32_t, int32_t> answer_counts;  // of answer tokens; prompt tokens are there with 0
  };
  using Candidate = std::pair<float, int32_t>;  // scaled logit, token

  bool IsMasked(const State& state, const Row& row) const {
    return row.position - state.spec.prompt_length < state.spec.sampler.min_tokens;
  }
  TokenLogprob SampleRow(float* logits, const Row& row, std::vector<Candidate>& candidates) const;
  void ApplyPenalties(const State& state, float* logits) const;
  int32_t Draw(const Row& row, const float* logits, std::vector<Candidate>& candidates) const;

  int64_t vocab_size_;
  std::vector<State> states_;
  std::vector<std::vector<Candidate>> candidates_;  // one per worker, of whom some may never sample
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_SAMPLER_H_
