// When a sequence is compressed: a pure function of its prompt length and of how many tokens it has been fed, so that
// neither chunk sizes, batch neighbours, ranks nor memory pressure move an event (COMPRESSION section 6).
#ifndef CAIRN_COMPRESSION_TRIGGER_H_
#define CAIRN_COMPRESSION_TRIGGER_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "compression/compression_config.h"

namespace cairn {

// The tokens a sequence has been fed, and how many it had been fed at its last event (0: none yet). Together with the
// budgets they give the physical length of every layer.
struct SequenceLength {
  int64_t fed = 0;  // logical length
  int64_t fed_at_event = 0;

  // Slots in use in a layer whose budget is K: an event reduces layers that are above K to K and leaves the others.
  int64_t slots(int64_t K) const { return std::min(fed_at_event, K) + fed - fed_at_event; }
};

class Trigger {
 public:
  // `budgets`: K_l of all layers. A disabled config never triggers.
  Trigger(const CompressionConfig& config, const std::vector<int32_t>& budgets);

  // Whether an event follows the forward that brought the sequence to `fed` tokens. Prompt tokens come in chunks, so
  // `fed` may lie inside the prompt; after it, forwards are of one token.
  bool EventAt(int64_t prompt_length, int64_t fed) const;
  // Whether a method that observes sees the window's queries after that forward, without an event: once in a window of
  // decoded tokens, counted from each event, and before the first one back from it.
  bool ObservesAt(int64_t prompt_length, int64_t fed) const;
  // A chunk that starts at `fed` must not go beyond this many tokens: bounded prefill ends chunks where an event is
  // due, otherwise there is no such end.
  int64_t ChunkEnd(int64_t prompt_length, int64_t fed) const;

  // The length at which the first event comes, if the sequence gets that far.
  int64_t FirstEvent(int64_t prompt_length) const;

 private:
  CompressionConfig config_;
  int64_t min_budget_ = 0;
  bool observes_ = false;
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_TRIGGER_H_
