// Host memory at the ends of copies to and from a device: page-locked where the device is a GPU, so that copies run at
// the bus's speed and beside other work; common memory on CPU.
#ifndef CAIRN_KERNELS_CORE_PINNED_MEMORY_H_
#define CAIRN_KERNELS_CORE_PINNED_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/device.h"

namespace cairn {

class PinnedMemory {
 public:
  PinnedMemory() = default;
  // RESOURCE_EXHAUSTED names the bytes asked for.
  static absl::StatusOr<PinnedMemory> Allocate(Device device, size_t bytes);
  PinnedMemory(PinnedMemory&& other) noexcept { *this = static_cast<PinnedMemory&&>(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory() { Free(); }

  uint8_t* data() const { return pinned_ != nullptr ? pinned_ : common_.data(); }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void Free();

  uint8_t* pinned_ = nullptr;  // of a GPU
  Buffer common_;              // of the CPU
  size_t size_bytes_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_PINNED_MEMORY_H_
