// One step, decided by the scheduling rank and carried out by every rank of the replica in the order it was made: a
// value that travels. Handles (`sequence`) are small integers, reused after a close.
#ifndef CAIRN_ENGINE_SCHEDULER_STEP_PLAN_H_
#define CAIRN_ENGINE_SCHEDULER_STEP_PLAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace cairn {

// What the sampling rank must know of a sequence.
struct SamplerSpec {
  uint64_t seed = 0;         // the request's, or the engine's
  uint64_t request_key = 0;  // hash of the request's id
  int32_t index = 0;         // which of the n answers
  float temperature = 1, top_p = 1, min_p = 0;
  int32_t top_k = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int32_t min_tokens = 0;
  int32_t num_logprobs = -1;  // -1: none
};

struct OpenSequence {
  int32_t sequence = 0;
  std::string request_id = {};  // for messages
  SamplerSpec sampler;
  int32_t prompt_length = 0;                // tokens from here on are the answer's
  std::vector<int32_t> masked_tokens = {};  // until min_tokens: EOS and stop ids
  std::vector<int32_t> history = {};        // prompt and answer so far, where a penalty needs them; else empty
};

struct SequenceStep {
  int32_t sequence = 0;
  int32_t position = 0;              // of the first token: the sequence's logical length
  std::vector<int32_t> tokens = {};  // a prompt chunk, or the one token decoded last
  bool sample = false;               // the last token's logits give a new token
  bool compress = false;             // after the forward of the whole step
  bool observe = false;              // then: the scores of its slots see the last queries; an event does so by itself
};

// One set of slots that every head of every layer keeps (scope sequence): chosen by the last stage, ascending, the
// window included.
struct Compaction {
  int32_t sequence = 0;
  std::vector<int32_t> kept = {};
};

struct StepPlan {
  int64_t step = 0;
  bool shutdown = false;
  std::vector<int32_t> closes;          // before everything else
  std::vector<Compaction> compactions;  // then these
  std::vector<OpenSequence> opens;
  std::vector<SequenceStep> sequences;

  int64_t num_tokens() const;
  bool compresses() const;  // is any sequence compressed, or observed, after this step?
  std::string Serialize() const;
  static StepPlan Parse(const std::string& bytes);
};

// What the last stage sends back: a token per sequence that sampled, in the plan's order, and what sequences keep.
struct StepResult {
  struct Token {
    int32_t sequence = 0;
    TokenLogprob sampled;
  };
  int64_t step = 0;
  std::vector<Token> tokens;
  std::vector<Compaction> compactions = {};

  std::string Serialize() const;
  static StepResult Parse(const std::string& bytes);
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_SCHEDULER_STEP_PLAN_H_
