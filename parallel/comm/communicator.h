// The data plane of one process group: tensors between the ranks that share a layer (tp) or hand it on (pp).
//
// Small on purpose, and every implementation implements all of it: MPI on host memory (ranks of one host reduce through
// a shared window), threads of one process (tests, and `--launch`-free library use), NCCL on device memory, either of
// the former for a GPU's tensors by way of the host. What serves a GPU takes tensors of host memory too. A tensor in
// the wrong memory, of the wrong type or not contiguous is INVALID_ARGUMENT; a peer that is gone or late is UNAVAILABLE
// or DEADLINE_EXCEEDED, naming the operation and the rank. All ranks of a group call the same collectives in the same
// order.
#ifndef CAIRN_PARALLEL_COMM_COMMUNICATOR_H_
#define CAIRN_PARALLEL_COMM_COMMUNICATOR_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"

namespace cairn {

enum class ReduceOp { kSum, kMin, kMax };

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Whether operations are work of the device's stream, like ops: the host does not wait for them, and they can be part
  // of a recorded step (kernels/ops/decode_graphs.h).
  virtual bool runs_on_stream() const { return false; }

  // In place, float32 or int64. Summed in rank order: every rank gets the same bits, run after run.
  virtual absl::Status AllReduce(const Tensor& data, ReduceOp op) = 0;
  // out [size, ...in]: the ranks' `in` in rank order.
  virtual absl::Status AllGather(const Tensor& in, const Tensor& out) = 0;
  // The same on `root` alone; the others' `out` is not touched.
  virtual absl::Status Gather(const Tensor& in, const Tensor& out, int root) = 0;
  virtual absl::Status Broadcast(const Tensor& data, int root) = 0;
  // Send may return before the receiver has the data and does not wait for it to ask: `data` may be reused at once, and
  // a rank that sends can go on computing. Recv waits, for exactly data.size_bytes(). Order is kept per pair.
  virtual absl::Status Send(const Tensor& data, int destination) = 0;
  virtual absl::Status Recv(const Tensor& data, int source) = 0;

  // On a GPU, whose operations run behind the host: until all that its stream has been given is done, or an error, or
  // the timeout. Before what depends on the ranks is read. On host memory operations are done when they return.
  virtual absl::Status Synchronize() { return absl::OkStatus(); }
  // Memory in which AllReduce is quickest, for as long as the communicator lives; null where any will do. Collective;
  // the same size on every rank.
  virtual absl::StatusOr<void*> AllocateForReduce(size_t /*bytes*/) { return nullptr; }
  // Room for `count` more of this rank's messages, each of at most `bytes`, where Send copies them on the device: from
  // then on a message that fits waits on the stream for room instead of allocating.
  virtual absl::Status ReserveMessages(int /*count*/, size_t /*bytes*/) { return absl::OkStatus(); }
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_COMMUNICATOR_H_
