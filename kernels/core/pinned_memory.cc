#include "kernels/core/pinned_memory.h"

#include <utility>

#include "kernels/core/status_macros.h"
#if CAIRN_CUDA
#include "kernels/core/buffer_cuda.h"
#endif

namespace cairn {

absl::StatusOr<PinnedMemory> PinnedMemory::Allocate(Device device, size_t bytes) {
  PinnedMemory memory;
  if (bytes == 0) return memory;
#if CAIRN_CUDA
  if (!device.is_cpu()) {
    CAIRN_ASSIGN_OR_RETURN(void* pinned, cuda::AllocatePinnedMemory(device.index, bytes));
    memory.pinned_ = static_cast<uint8_t*>(pinned);
    memory.size_bytes_ = bytes;
    return memory;
  }
#endif
  CAIRN_ASSIGN_OR_RETURN(memory.common_, Buffer::Allocate(device, bytes));
  memory.size_bytes_ = bytes;
  return memory;
}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  if (this != &other) {
    Free();
    pinned_ = std::exchange(other.pinned_, nullptr);
    common_ = std::move(other.common_);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
  }
  return *this;
}

void PinnedMemory::Free() {
#if CAIRN_CUDA
  if (pinned_ != nullptr) cuda::FreePinnedMemory(pinned_);
#endif
  pinned_ = nullptr;
}

}  // namespace cairn
