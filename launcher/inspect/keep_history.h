// What every KV head of every layer held of one sequence, at any time. A token that a head has let go of never comes
// back, so one number for each (layer, head, position) says it all: the event at which the token went.
#ifndef CAIRN_LAUNCHER_INSPECT_KEEP_HISTORY_H_
#define CAIRN_LAUNCHER_INSPECT_KEEP_HISTORY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/eviction.h"

namespace cairn {

// Positions begin .. end - 1.
struct PositionRange {
  int32_t begin = 0, end = 0;
  bool operator==(const PositionRange&) const = default;
};

// The fewest ranges that hold exactly `positions`, which ascend strictly.
std::vector<PositionRange> RangesOf(absl::Span<const int32_t> positions);

class KeepHistory {
 public:
  KeepHistory(int64_t num_layers, int64_t kv_heads);

  // The next record, in the order of events; within an event in any order. A head that has no record of an event kept
  // everything. INTERNAL where a record cannot follow those before it: layer or head unknown, positions that do not
  // ascend, are not yet fed or were let go of before, a second record of one event.
  absl::Status Add(const Eviction& eviction);

  int64_t num_layers() const { return num_layers_; }
  int64_t kv_heads() const { return kv_heads_; }
  int num_events() const { return static_cast<int>(logical_lengths_.size()); }
  // Tokens fed before event 1 .. num_events().
  int64_t logical_length(int event) const { return logical_lengths_[event - 1]; }

  // The event at which the head let go of the token; 0: it has not, or the token was never fed.
  int32_t evicted_at(int64_t layer, int64_t head, int64_t position) const;
  // What the head holds after events 1 .. `event`, when `length` tokens have been fed. Ascending.
  std::vector<int32_t> KeptPositions(int64_t layer, int64_t head, int event, int64_t length) const;

 private:
  struct Head {
    int32_t last_event = 0;
    std::vector<int32_t> evicted_at = {};  // by position; as long as its last record reaches
  };
  const Head& head(int64_t layer, int64_t head) const { return heads_[layer * kv_heads_ + head]; }

  int64_t num_layers_, kv_heads_;
  std::vector<Head> heads_;  // [layers, kv_heads]
  std::vector<int64_t> logical_lengths_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_INSPECT_KEEP_HISTORY_H_
