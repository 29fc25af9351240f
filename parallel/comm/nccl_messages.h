// Messages that have been copied out of their sender's way on the device, until they have left.
#ifndef CAIRN_PARALLEL_COMM_NCCL_MESSAGES_H_
#define CAIRN_PARALLEL_COMM_NCCL_MESSAGES_H_

#include <cuda_runtime_api.h>

#include <deque>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/tensor.h"

namespace cairn {

class NcclMessages {
 public:
  struct Copy {
    Buffer memory;
    size_t bytes = 0;                              // of the message
    cudaEvent_t filled = nullptr, left = nullptr;  // for the sender to record
    bool is_kept = false;                          // not to be used again yet, whatever `left` says
  };

  // Copies run on `stream`.
  NcclMessages(Device device, cudaStream_t stream) : device_(device), stream_(stream) {}
  ~NcclMessages();

  // Communicator::ReserveMessages.
  absl::Status Reserve(int count, size_t bytes);

  // A copy of `data`, made on the stream: in memory that is free, or else new; or, where room was reserved, in what
  // will be free first, once it is.
  absl::StatusOr<Copy*> Fill(const Tensor& data);

 private:
  absl::StatusOr<std::unique_ptr<Copy>> Make(size_t bytes) const;
  absl::StatusOr<std::unique_ptr<Copy>> Take(size_t bytes);

  const Device device_;
  const cudaStream_t stream_;
  std::deque<std::unique_ptr<Copy>> copies_;  // by their last use, the oldest first
  bool has_reserved_ = false;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_NCCL_MESSAGES_H_
