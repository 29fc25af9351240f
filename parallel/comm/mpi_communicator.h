// The data plane on host memory between MPI ranks: within a host through shared memory, between hosts through MPI.
#ifndef CAIRN_PARALLEL_COMM_MPI_COMMUNICATOR_H_
#define CAIRN_PARALLEL_COMM_MPI_COMMUNICATOR_H_

#include <memory>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/mpi_group.h"

namespace cairn {

class MpiCommunicator : public Communicator {
 public:
  // `group` is of GroupUse::kTensors.
  explicit MpiCommunicator(std::unique_ptr<MpiGroup> group);

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }

  absl::Status AllReduce(const Tensor& data, ReduceOp op) override;
  absl::Status AllGather(const Tensor& in, const Tensor& out) override;
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override;
  absl::Status Broadcast(const Tensor& data, int root) override;
  absl::Status Send(const Tensor& data, int destination) override;
  absl::Status Recv(const Tensor& data, int source) override;

 private:
  // Ranks that are neighbours in rank order on one host: a reduction passes through the runs one after the other.
  struct Run {
    int host;
    std::vector<int> locals;  // the host's window ranks, in rank order
  };

  bool one_host() const { return group_->layout().num_hosts() == 1; }
  absl::Status ReduceAcrossHosts(uint8_t* data, int64_t count, DType dtype, ReduceOp op);
  // This column's slice of the step that is in the window: sums the runs in order, leaves the total in the result.
  absl::Status ReduceColumn(size_t offset_bytes, int64_t count, DType dtype, ReduceOp op);
  absl::Status BroadcastAcrossHosts(WindowOperation::Kind kind, uint8_t* data, size_t bytes, int root);
  absl::Status GatherAcrossHosts(const uint8_t* in, size_t bytes, uint8_t* out, int root);
  absl::Status SendCollective(int to, const void* data, size_t bytes);
  absl::Status RecvCollective(const char* operation, int source, void* data, size_t bytes);
  // Waits for the pieces of one message of exactly `bytes`; `poll` looks for the next, `pop` lets go of it.
  template <typename Poll, typename Pop>
  absl::Status RecvExactly(const char* operation, int source, uint8_t* data, size_t bytes, Poll poll, Pop pop);

  const std::unique_ptr<MpiGroup> group_;
  std::vector<Run> runs_;
  int num_columns_ = 1;          // ranks of each host that take part in reducing across hosts
  std::vector<uint8_t> prefix_;  // the sum over the runs before ours
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MPI_COMMUNICATOR_H_
