// The data plane of a GPU over a communicator on host memory: tensors go through page-locked memory on their way out
// and in. For ranks that share a GPU (NCCL refuses those) and where NCCL is not there. Tensors in host memory pass as
// they are.
#ifndef CAIRN_PARALLEL_COMM_STAGED_COMMUNICATOR_H_
#define CAIRN_PARALLEL_COMM_STAGED_COMMUNICATOR_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/core/context.h"
#include "kernels/core/pinned_memory.h"
#include "parallel/comm/communicator.h"

namespace cairn {

class StagedCommunicator : public Communicator {
 public:
  // Of tensors on the context's device, in the order of its ops: each call waits for the ops given before. `context` is
  // not owned.
  StagedCommunicator(Context* context, std::unique_ptr<Communicator> host)
      : context_(context), host_(std::move(host)) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }

  absl::Status AllReduce(const Tensor& data, ReduceOp op) override;
  absl::Status AllGather(const Tensor& in, const Tensor& out) override;
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override;
  absl::Status Broadcast(const Tensor& data, int root) override;
  absl::Status Send(const Tensor& data, int destination) override;
  absl::Status Recv(const Tensor& data, int source) override;

 private:
  // A tensor like `data` in the page-locked memory, which grows to the largest one.
  absl::StatusOr<Tensor> Room(PinnedMemory& memory, const Tensor& data);
  // The same, with its values.
  absl::StatusOr<Tensor> Fetch(const char* operation, const Tensor& data);

  Context* context_;
  std::unique_ptr<Communicator> host_;
  PinnedMemory in_, out_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_STAGED_COMMUNICATOR_H_
