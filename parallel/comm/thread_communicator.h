// The data plane between threads: every tensor is copied through a mailbox. For tests and one rank; it is not fast.
#ifndef CAIRN_PARALLEL_COMM_THREAD_COMMUNICATOR_H_
#define CAIRN_PARALLEL_COMM_THREAD_COMMUNICATOR_H_

#include <memory>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/thread_group.h"

namespace cairn {

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  absl::Status AllReduce(const Tensor& data, ReduceOp op) override;
  absl::Status AllGather(const Tensor& in, const Tensor& out) override;
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override;
  absl::Status Broadcast(const Tensor& data, int root) override;
  absl::Status Send(const Tensor& data, int destination) override;
  absl::Status Recv(const Tensor& data, int source) override;

 private:
  // This rank's bytes to every other rank.
  absl::Status PostToOthers(const ThreadGroup::Payload& bytes);
  // The next `bytes` of `source`, for `operation`.
  absl::StatusOr<ThreadGroup::Payload> TakeExactly(const char* operation, int source, int tag, size_t bytes);

  const std::shared_ptr<ThreadGroup> group_;
  const int rank_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_THREAD_COMMUNICATOR_H_
