// The data plane between GPUs. Operations take their place on the context's stream and return: whoever reads a result
// waits with Synchronize, which also notices what goes wrong. They may be captured in a CUDA graph; its replays are the
// same operations again.
//
// What differs from communicators on host memory:
// - Sums are in an order that NCCL chooses. Every rank gets the same bits; they differ from those of a sum in rank
// order.
//   The least or the greatest of floats may lose a NaN.
// - NCCL does not compare sizes: a Recv of another size than its Send is not noticed.
// - Between more than two ranks messages that cross (each rank sends to several before it receives) may wait for each
//   other; a chain of pipeline stages never does. Gather goes where messages of even ranks go: not while one is under
//   way.
#ifndef CAIRN_PARALLEL_COMM_NCCL_COMMUNICATOR_H_
#define CAIRN_PARALLEL_COMM_NCCL_COMMUNICATOR_H_

#include <cuda_runtime_api.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/core/context.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/nccl_lane.h"
#include "parallel/comm/nccl_messages.h"
#include "parallel/comm/nccl_peers.h"

namespace cairn {

class NcclCommunicator;

// What the communicators on one context's stream share: when it stands still, any of them may be why. Outlives neither
// the communicators nor, in use, the context.
struct NcclStream {
  NcclStream(Context& context, double timeout_seconds);

  const Device device;
  const cudaStream_t stream;
  const double timeout_seconds;  // zero waits for ever
  std::vector<NcclCommunicator*> communicators;
};

// What a group is for. A pipeline sends while it receives: its messages of even and of odd ranks go by different NCCL
// communicators, since operations of one follow one another. Neighbours are connected from the start; a first message
// between others waits for its receiver to ask.
enum class NcclUse { kTensorParallel, kPipeline };

class NcclCommunicator : public Communicator {
 public:
  // Collective over `control`, whose ranks are the group's; an error of one is every rank's, within the timeout. `host`
  // is the same group's communicator for tensors in host memory.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(const NcclLibrary* library,
                                                                  std::shared_ptr<NcclStream> stream, NcclUse use,
                                                                  std::unique_ptr<ControlChannel> control,
                                                                  std::unique_ptr<Communicator> host);
  ~NcclCommunicator() override;

  int rank() const override { return peers_->rank(); }
  int size() const override { return peers_->size(); }

  bool runs_on_stream() const override { return true; }
  absl::Status AllReduce(const Tensor& data, ReduceOp op) override;
  absl::Status AllGather(const Tensor& in, const Tensor& out) override;
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override;
  absl::Status Broadcast(const Tensor& data, int root) override;
  absl::Status Send(const Tensor& data, int destination) override;
  absl::Status Recv(const Tensor& data, int source) override;
  absl::Status Synchronize() override;
  // From an NCCL of 2.27 on: a symmetric window.
  absl::StatusOr<void*> AllocateForReduce(size_t bytes) override;
  absl::Status ReserveMessages(int count, size_t bytes) override;

 private:
  NcclCommunicator(const NcclLibrary* library, std::shared_ptr<NcclStream> stream, std::unique_ptr<NcclPeers> peers,
                   std::unique_ptr<Communicator> host);
  absl::Status StartLanes(NcclUse use);
  absl::Status ConnectNeighbours();

  NcclLane& LaneOfMessages(int sender) { return *lanes_[sender % lanes_.size()]; }
  bool IsCapturing() const;

  // Makes one call of NCCL and sees it settled. `peer` is a message's other end.
  static constexpr int kNoPeer = -1;
  absl::Status Issue(const char* operation, int peer, NcclLane& lane, absl::FunctionRef<ncclResult_t()> call);
  absl::Status Settle(NcclLane& lane);
  // An error of a lane, or a report of another rank, if there is one; this rank has then given up.
  absl::Status Poll();
  // Ends everything on this rank; what it returns stays.
  absl::Status GiveUp(const GroupReport& mine, const std::optional<std::pair<int, GroupReport>>& heard = std::nullopt);
  absl::Status GiveUpLate();
  absl::Status GiveUpOthers(const absl::Status& failure);
  bool IsLate() const;
  void BeginWait() { wait_begin_ = std::chrono::steady_clock::now(); }

  absl::Status RecvFromSelf(const Tensor& data);

  const NcclLibrary* library_;
  const std::shared_ptr<NcclStream> stream_;
  const std::unique_ptr<NcclPeers> peers_;
  const std::unique_ptr<Communicator> host_;
  std::vector<std::unique_ptr<NcclLane>> lanes_;
  absl::Status failure_;
  // Of the operations that are not known to be done: the first, and how many.
  std::string first_pending_;
  int64_t num_pending_ = 0;
  std::chrono::steady_clock::time_point wait_begin_;

  cudaStream_t send_stream_ = nullptr;
  NcclMessages copies_;
  std::deque<NcclMessages::Copy*> to_self_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_NCCL_COMMUNICATOR_H_
