#include "launcher/inspect/keep_history.h"

#include "absl/strings/str_cat.h"

namespace cairn {

std::vector<PositionRange> RangesOf(absl::Span<const int32_t> positions) {
  std::vector<PositionRange> ranges;
  for (const int32_t position : positions) {
    if (ranges.empty() || ranges.back().end != position) ranges.push_back({position, position});
    ranges.back().end = position + 1;
  }
  return ranges;
}

KeepHistory::KeepHistory(int64_t num_layers, int64_t kv_heads)
    : num_layers_(num_layers), kv_heads_(kv_heads), heads_(num_layers * kv_heads) {}

absl::Status KeepHistory::Add(const Eviction& eviction) {
  const auto refuse = [&](const char* why) {
    return absl::InternalError(absl::StrCat("compaction of layer ", eviction.layer, ", KV head ", eviction.kv_head,
                                            " after ", eviction.logical_length, " tokens: ", why));
  };
  if (eviction.layer < 0 || eviction.layer >= num_layers_ || eviction.kv_head < 0 || eviction.kv_head >= kv_heads_) {
    return refuse("the model has no such head");
  }
  if (logical_lengths_.empty() || eviction.logical_length > logical_lengths_.back()) {
    logical_lengths_.push_back(eviction.logical_length);
  }
  if (eviction.logical_length != logical_lengths_.back()) return refuse("a later one was recorded before it");
  const int32_t event = num_events();
  Head& head = heads_[eviction.layer * kv_heads_ + eviction.kv_head];
  if (head.last_event == event) return refuse("recorded twice");
  head.last_event = event;
  head.evicted_at.resize(eviction.logical_length);
  auto kept = eviction.positions.begin();
  for (int32_t position = 0; position < eviction.logical_length; ++position) {
    if (kept != eviction.positions.end() && *kept == position) {
      if (head.evicted_at[position] != 0) return refuse("it holds a token that it had let go of");
      ++kept;
    } else if (head.evicted_at[position] == 0) {
      head.evicted_at[position] = event;
    }
  }
  if (kept != eviction.positions.end()) return refuse("positions do not ascend, or are not yet fed");
  return absl::OkStatus();
}

int32_t KeepHistory::evicted_at(int64_t layer, int64_t head, int64_t position) const {
  const std::vector<int32_t>& events = this->head(layer, head).evicted_at;
  return position < static_cast<int64_t>(events.size()) ? events[position] : 0;
}

std::vector<int32_t> KeepHistory::KeptPositions(int64_t layer, int64_t head, int event, int64_t length) const {
  std::vector<int32_t> kept;
  for (int32_t position = 0; position < length; ++position) {
    const int32_t gone = evicted_at(layer, head, position);
    if (gone == 0 || gone > event) kept.push_back(position);
  }
  return kept;
}

}  // namespace cairn
