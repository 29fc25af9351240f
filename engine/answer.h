// One answer as it grows: tokens to text, and where it ends.
#ifndef CAIRN_ENGINE_ANSWER_H_
#define CAIRN_ENGINE_ANSWER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/text/tokenizer.h"

namespace cairn {

class Answer {
 public:
  // `sampling`, `eos_token_ids` and `tokenizer` (may be null: no text) must outlive it. `max_tokens`: the request's, or
  // what the context leaves.
  Answer(const SamplingParams& sampling, int32_t index, const std::vector<int32_t>& eos_token_ids,
         const Tokenizer* tokenizer, int32_t max_tokens);

  // The next token; ends the answer where a stop condition says so.
  void Add(const TokenLogprob& token);

  bool finished() const { return whole_.finish_reason != FinishReason::kNone; }
  // What came since the last call. Text that may turn out to begin a stop string is held back.
  Completion TakeNew();
  const Completion& whole() const { return whole_; }

 private:
  bool EndsAtToken(int32_t token);
  bool CutAtStopString(size_t from);
  size_t HeldBack() const;

  const SamplingParams& sampling_;
  const std::vector<int32_t>& eos_token_ids_;
  int32_t max_tokens_;
  std::optional<IncrementalDetokenizer> detokenizer_;
  Completion whole_;
  size_t taken_tokens_ = 0, taken_text_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_ANSWER_H_
