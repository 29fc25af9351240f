// What all MPI groups of a process share: who is on which host, how long to wait, and the messages that are on their
// way.
#ifndef CAIRN_PARALLEL_COMM_MPI_RUNTIME_H_
#define CAIRN_PARALLEL_COMM_MPI_RUNTIME_H_

#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/host_mailbox.h"
#include "parallel/comm/shared_memory.h"
#include "parallel/comm/waiter.h"

namespace cairn {

// OK, or UNAVAILABLE with MPI's own words.
absl::Status FromMpi(int code, const char* call);

// Messages that MPI has not finished sending, each in a buffer of ours that is used again.
class OutgoingMessages {
 public:
  // Copies header and data and sends them in pieces of `piece_bytes`.
  absl::Status Send(MPI_Comm comm, int to, int mpi_tag, const void* header, size_t header_bytes, const void* data,
                    size_t bytes, size_t piece_bytes);
  // Also what drives MPI's own progress. True when nothing is on its way.
  bool Reap();
  bool empty() const { return requests_.empty(); }

 private:
  struct Buffer {
    std::unique_ptr<uint8_t[]> data;
    size_t capacity = 0;
    int pieces_left = 0;  // zero: free
  };

  // Index of a free buffer of at least that size.
  int Acquire(size_t bytes);

  std::vector<Buffer> buffers_;
  std::vector<MPI_Request> requests_;
  std::vector<int> owners_;  // buffer of each request
  std::vector<int> finished_;
};

class MpiRuntime {
 public:
  // Collective over the world.
  static absl::StatusOr<std::shared_ptr<MpiRuntime>> Create(double timeout_seconds);
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;
  // Gives what is still on its way a few seconds to leave, and says so where it does not.
  ~MpiRuntime();

  int world_rank() const { return world_rank_; }
  int host_id() const { return host_id_; }  // a number that the ranks of one host, and no others, share
  const std::string& host() const { return host_; }
  const WaitPolicy& policy() const { return policy_; }
  OutgoingMessages& outgoing() { return outgoing_; }

  // Moves own messages on. Every wait calls it, and every call that may not wait.
  void Progress();
  // Keeps a mailbox until all it holds is in shared memory. `memory` is what it lies in.
  void Flush(std::shared_ptr<SharedMemory> memory, std::shared_ptr<HostMailbox> mailbox);

 private:
  MpiRuntime() = default;

  struct Unflushed {
    std::shared_ptr<SharedMemory> memory;
    std::shared_ptr<HostMailbox> mailbox;
  };

  int world_rank_ = 0, host_id_ = 0;
  std::string host_;
  WaitPolicy policy_;
  OutgoingMessages outgoing_;
  std::vector<Unflushed> unflushed_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MPI_RUNTIME_H_
