// A group of MPI ranks: who is on which host, the memory that those of one host share, and messages between any two.
#ifndef CAIRN_PARALLEL_COMM_MPI_GROUP_H_
#define CAIRN_PARALLEL_COMM_MPI_GROUP_H_

#include <mpi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/comm/host_mailbox.h"
#include "parallel/comm/host_window.h"
#include "parallel/comm/mpi_link.h"
#include "parallel/comm/mpi_runtime.h"
#include "parallel/comm/shared_memory.h"

namespace cairn {

// The ranks of a group by host, hosts in the order of their first ranks.
struct HostLayout {
  std::vector<int> host_of;             // by rank
  std::vector<std::vector<int>> ranks;  // by host, ascending

  // host_ids[rank]: equal for the ranks of one host.
  static HostLayout Of(const std::vector<int>& host_ids);
  int num_hosts() const { return static_cast<int>(ranks.size()); }
};

enum class GroupUse { kControl, kTensors };

class MpiGroup {
 public:
  // Collective over `comm`, which the group then owns. An error comes back on every rank.
  static absl::StatusOr<std::unique_ptr<MpiGroup>> Create(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm,
                                                          GroupUse use);
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;
  ~MpiGroup();  // local: waits for nobody; what was sent still arrives

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm comm() const { return comm_; }
  const std::shared_ptr<MpiRuntime>& runtime() const { return runtime_; }
  const HostLayout& layout() const { return layout_; }
  int host_index() const { return layout_.host_of[rank_]; }
  const std::vector<int>& local_ranks() const { return layout_.ranks[host_index()]; }
  int local_rank() const { return local_rank_; }
  bool is_local(int rank) const { return layout_.host_of[rank] == host_index(); }
  HostWindow& window() const { return *window_; }  // kTensors only
  MpiLink& link() { return link_; }

  // Messages: copies and never waits; the next piece from `source`, valid until Pop.
  absl::Status Send(int to, int tag, const void* data, size_t bytes);
  absl::StatusOr<std::optional<MessagePiece>> Poll(int source);
  void Pop(int source);
  // The same for whichever rank of another host has sent one; nothing to Pop.
  absl::StatusOr<std::optional<MessagePiece>> PollOtherHosts();

  // DEADLINE_EXCEEDED: "<operation> on rank 1 of 4: waited 5 s for rank 3".
  absl::Status Late(const char* operation, const std::string& whom, double timeout_seconds) const;

 private:
  MpiGroup(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm);

  // Sets memory_, and layout_ anew where ranks of a host cannot share.
  absl::Status ShareHostMemory(GroupUse use);
  // Memory shared with the ranks of `layout_`'s host; an error is this rank's own.
  absl::StatusOr<std::unique_ptr<SharedMemory>> MapHostMemory(size_t bytes);
  // The window and the mailbox in memory_.
  void FurnishHostMemory(GroupUse use);
  absl::StatusOr<std::vector<int>> GatherInts(int mine) const;
  int local_index(int rank) const { return local_index_[rank]; }

  const std::shared_ptr<MpiRuntime> runtime_;
  const MPI_Comm comm_;
  int rank_ = 0, size_ = 1, local_rank_ = 0;
  HostLayout layout_;
  std::shared_ptr<SharedMemory> memory_;
  std::unique_ptr<HostWindow> window_;
  std::shared_ptr<HostMailbox> mailbox_;
  std::vector<int> local_index_;  // by rank: its place among its host's ranks
  MpiLink link_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MPI_GROUP_H_
