// The control plane: messages of any length between the ranks of a group, on the host. StepPlans, sampled tokens,
// requests for data-parallel replicas and agreement about errors travel here; tensors do not.
#ifndef CAIRN_PARALLEL_COMM_CONTROL_CHANNEL_H_
#define CAIRN_PARALLEL_COMM_CONTROL_CHANNEL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/communicator.h"

namespace cairn {

struct ControlMessage {
  int source = 0;
  std::string bytes;
};

class ControlChannel {
 public:
  static constexpr int kAnySource = -1;

  virtual ~ControlChannel() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Buffered: returns at once, order is kept per (pair, tag). Tags are small non-negative integers.
  virtual absl::Status Send(int destination, int tag, std::string bytes) = 0;
  // Waits without burning the core; `source` may be kAnySource. A zero timeout waits for ever.
  virtual absl::StatusOr<ControlMessage> Recv(int source, int tag, double timeout_seconds = 0) = 0;
  virtual absl::StatusOr<std::optional<ControlMessage>> TryRecv(int source, int tag) = 0;

  virtual absl::Status Barrier() = 0;
  // Every rank's bytes, in rank order, on every rank.
  virtual absl::StatusOr<std::vector<std::string>> AllGather(const std::string& bytes) = 0;

  // Collective: ranks of equal color form a group, ordered by key. The group's control channel, and its data plane.
  virtual absl::StatusOr<std::unique_ptr<ControlChannel>> Split(int color, int key) = 0;
  virtual absl::StatusOr<std::unique_ptr<Communicator>> SplitCommunicator(int color, int key) = 0;

  // How many ranks of this channel share this host, and which of them this one is (from a shared-memory split, never
  // from rank modulo).
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;
  virtual std::string host() const = 0;

  // Prints `message` with the rank and ends every rank of the job with `exit_code`. Does not return (in the threads
  // implementation: makes every pending and later call of all ranks fail).
  virtual void Abort(int exit_code, const std::string& message) = 0;
};

// The first error in rank order as every rank's result ("rank 3 on host: ..." when there is more than one rank), or OK
// everywhere. Ends a phase that any rank may fail alone (start-up), so that nobody waits for the gone.
absl::Status AgreeOnStatus(ControlChannel& channel, const absl::Status& mine);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_CONTROL_CHANNEL_H_
