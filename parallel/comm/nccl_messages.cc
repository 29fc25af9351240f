#include "parallel/comm/nccl_messages.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check_cuda.h"
#include "kernels/core/status_macros.h"

namespace cairn {

NcclMessages::~NcclMessages() {
  for (const auto& copy : copies_) {
    cudaEventDestroy(copy->filled);
    cudaEventDestroy(copy->left);
  }
}

absl::StatusOr<std::unique_ptr<NcclMessages::Copy>> NcclMessages::Make(size_t bytes) const {
  auto copy = std::make_unique<Copy>();
  CAIRN_ASSIGN_OR_RETURN(copy->memory, Buffer::Allocate(device_, bytes));
  CAIRN_CUDA_CHECK(cudaEventCreateWithFlags(&copy->filled, cudaEventDisableTiming));
  CAIRN_CUDA_CHECK(cudaEventCreateWithFlags(&copy->left, cudaEventDisableTiming));
  return copy;
}

absl::Status NcclMessages::Reserve(int count, size_t bytes) {
  for (int i = 0; i < count; ++i) {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Copy> copy, Make(bytes));
    copies_.push_front(std::move(copy));
  }
  has_reserved_ = has_reserved_ || count > 0;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<NcclMessages::Copy>> NcclMessages::Take(size_t bytes) {
  const auto fits = [&](const auto& copy) { return !copy->is_kept && copy->memory.size_bytes() >= bytes; };
  auto taken = std::find_if(copies_.begin(), copies_.end(), [&](const auto& copy) {
    return fits(copy) && cudaEventQuery(copy->left) != cudaErrorNotReady;
  });
  if (taken == copies_.end() && has_reserved_) {
    taken = std::find_if(copies_.begin(), copies_.end(), fits);
    if (taken != copies_.end()) CAIRN_CUDA_CHECK(cudaStreamWaitEvent(stream_, (*taken)->left, 0));
  }
  if (taken == copies_.end()) return Make(bytes);
  std::unique_ptr<Copy> copy = std::move(*taken);
  copies_.erase(taken);
  return copy;
}

absl::StatusOr<NcclMessages::Copy*> NcclMessages::Fill(const Tensor& data) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Copy> copy, Take(data.size_bytes()));
  copy->bytes = data.size_bytes();
  CAIRN_CUDA_CHECK(cudaMemcpyAsync(copy->memory.data(), data.raw(), copy->bytes, cudaMemcpyDeviceToDevice, stream_));
  return copies_.emplace_back(std::move(copy)).get();
}

}  // namespace cairn
