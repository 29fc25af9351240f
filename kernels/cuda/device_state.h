// What a Context on a GPU holds: its stream, cuBLASLt with the plans made so far, and the way of small tables to the
// device. One thread uses it.
#ifndef CAIRN_KERNELS_CUDA_DEVICE_STATE_H_
#define CAIRN_KERNELS_CUDA_DEVICE_STATE_H_

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/cuda/matmul_plans.h"

namespace cairn::cuda {

// GPUs of this process; 0 where there is no driver or none is visible.
int NumDevices();

// Tables that ops build on the host (block tables, work items) on their way to the device: pinned memory in front of
// device memory of the same size, filled front to back, then (after a wait for the stream) again from the front.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();
  absl::Status Reserve(int device, size_t bytes);

  // The bytes on the device, 256-byte aligned, for what the stream is given next; valid until the memory has been used
  // up by later tables, which is at least until as many bytes again have been uploaded as fit. The last tables are
  // not sent again when they come again: the ops of a layer share them.
  const void* Upload(int device, cudaStream_t stream, const void* data, size_t bytes);

 private:
  struct Table {
    size_t begin = 0, bytes = 0;
  };

  char* pinned_ = nullptr;
  Buffer device_;
  std::vector<Buffer> outgrown_;  // tables in them may still be in use
  size_t used_ = 0;
  Table last_[2];
};

class DeviceState {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceState>> Create(int index);
  ~DeviceState();
  DeviceState(const DeviceState&) = delete;
  DeviceState& operator=(const DeviceState&) = delete;

  int index() const { return index_; }
  cudaStream_t stream() const { return stream_; }
  MatMulPlans& matmul_plans() { return *matmul_plans_; }
  // A table of `count` values on the device (Staging::Upload).
  template <typename T>
  const T* Upload(const T* values, size_t count) {
    return static_cast<const T*>(staging_.Upload(index_, stream_, values, count * sizeof(T)));
  }

  // For building a table in; kept so that its memory is.
  std::vector<int32_t>& table_words() { return table_words_; }

  void Synchronize();
  // `rows` rows of `width` bytes; those of the device lie `pitch` apart, the host's have no gaps. CopyIn has read the
  // source when it returns; CopyOut has written the target.
  void CopyIn(void* to, size_t pitch, const void* from, size_t width, size_t rows);
  void CopyOut(void* to, const void* from, size_t pitch, size_t width, size_t rows);
  void Clear(void* to, size_t pitch, size_t width, size_t rows);

 private:
  explicit DeviceState(int index) : index_(index) {}
  absl::Status Initialize();

  int index_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<MatMulPlans> matmul_plans_;
  Staging staging_;
  std::vector<int32_t> table_words_;
};

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_DEVICE_STATE_H_
