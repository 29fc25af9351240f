// Owns a piece of one device's memory. On CPU: 64-byte aligned, zeroed, large ones mapped with huge pages and untouched
// until first use (so that an unused part of the KV pool costs no memory). On CUDA: 256-byte aligned device memory, not
// cleared, which the host cannot read.
#ifndef CAIRN_KERNELS_CORE_BUFFER_H_
#define CAIRN_KERNELS_CORE_BUFFER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/device.h"

namespace cairn {

class Buffer {
 public:
  Buffer() = default;
  // RESOURCE_EXHAUSTED names the bytes asked for.
  static absl::StatusOr<Buffer> Allocate(Device device, size_t bytes);
  Buffer(Buffer&& other) noexcept { *this = static_cast<Buffer&&>(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { Free(); }

  // At loading time; done on return. On a GPU they do not wait for what was given to streams.
  void Fill(const void* host, size_t bytes, size_t begin = 0);  // bytes [begin, begin + bytes)
  void Clear();

  uint8_t* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  Device device() const { return device_; }

 private:
  void Free();

  uint8_t* data_ = nullptr;
  size_t size_bytes_ = 0;
  Device device_;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_BUFFER_H_
