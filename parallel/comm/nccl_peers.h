// What the ranks of a group on GPUs tell each other when an operation does not end: NCCL itself waits for ever for a
// rank that does not come, and does not say for which. Over the control channel, which needs no GPU.
#ifndef CAIRN_PARALLEL_COMM_NCCL_PEERS_H_
#define CAIRN_PARALLEL_COMM_NCCL_PEERS_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

// Why a rank has given up on the group.
struct GroupReport {
  enum class Kind : char { kLate = 'L', kError = 'E', kTold = 'T' };  // waited too long; saw an error; heard of one
  Kind kind = Kind::kTold;
  std::string text;  // of kError: what was seen
};

class NcclPeers {
 public:
  // Collective over `control`, whose ranks are the group's. `device` is what this rank uses ("GPU 1"); `note` reaches
  // all others.
  static absl::StatusOr<std::unique_ptr<NcclPeers>> Meet(std::unique_ptr<ControlChannel> control,
                                                         const std::string& device, const std::string& note);

  int rank() const { return control_->rank(); }
  int size() const { return control_->size(); }
  int num_silent() const { return num_silent_; }  // ranks that had not reported when this one gave up
  const std::string& note(int rank) const { return notes_[rank]; }
  std::string Name(int rank) const;  // "rank 1 (host a, GPU 1)"

  // What another rank has reported, if one has. Never waits; moves this rank's own messages on.
  absl::StatusOr<std::optional<std::pair<int, GroupReport>>> Poll();

  // Tells the others, hears them for a moment, and says how it ended, in a status for `operation` of this rank:
  // UNAVAILABLE where anybody saw an error, else DEADLINE_EXCEEDED "<operation> on rank 0 of 3 (host a, GPU 0): waited
  // 5 s for rank 2 (host b, GPU 0)", the ranks that did not report. `heard`: what Poll has found before.
  absl::Status GiveUp(const std::string& operation, const GroupReport& mine, double waited_seconds,
                      double listen_seconds, const std::optional<std::pair<int, GroupReport>>& heard);

 private:
  explicit NcclPeers(std::unique_ptr<ControlChannel> control) : control_(std::move(control)) {}

  const std::unique_ptr<ControlChannel> control_;
  std::vector<std::string> places_, notes_;  // by rank: "host a, GPU 1"
  int num_silent_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_NCCL_PEERS_H_
