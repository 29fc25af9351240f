// What a Context on a GPU holds: its stream, cuBLASLt with the plans made so far, and the way of small tables to the
// device. One thread uses it.
#ifndef CAIRN_KERNELS_CUDA_DEVICE_STATE_H_
#define CAIRN_KERNELS_CUDA_DEVICE_STATE_H_

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/core/pinned_memory.h"
#include "kernels/cuda/matmul_plans.h"

namespace cairn::cuda {

struct PagedSequence;
struct WorkItem;

// Tables of one layer of a decode step that lie on the device already, at addresses that stay (decode_graphs.cu).
struct StepTables {
  const PagedSequence* sequences = nullptr;
  const int32_t* tables = nullptr;  // what their table_begin counts in
  float* const* rings = nullptr;
  const WorkItem* items = nullptr;  // row i of sequence i
};

// GPUs of this process; 0 where there is no driver or none is visible.
int NumDevices();
std::string DeviceId(int index);  // its UUID

// Tables that ops build on the host (block tables, work items) on their way to the device: pinned memory in front of
// device memory of the same size, filled front to back, then (after a wait for the stream) again from the front.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  absl::Status Reserve(int device, size_t bytes);

  // The bytes on the device, 256-byte aligned, for what the stream is given next; valid until the memory has been used
  // up by later tables, which is at least until as many bytes again have been uploaded as fit. The last tables are
  // not sent again when they come again: the ops of a layer share them.
  const void* Upload(int device, cudaStream_t stream, const void* data, size_t bytes);

  // A copy of the bytes in the pinned memory, for a copy that the stream is given next; valid as the above. At most
  // kMaxPiece bytes.
  static constexpr size_t kMaxPiece = size_t{1} << 20;
  const void* Pin(int device, cudaStream_t stream, const void* data, size_t bytes);

 private:
  // Room for `bytes`, from its beginning on; waits where it has to be used again.
  size_t Take(int device, cudaStream_t stream, size_t bytes);

  struct Table {
    size_t begin = 0, bytes = 0;
  };

  PinnedMemory pinned_;
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
  const std::string& id() const { return id_; }  // the GPU's UUID
  void GetMemory(int64_t* free_bytes, int64_t* total_bytes) const;
  cudaStream_t stream() const { return stream_; }
  MatMulPlans& matmul_plans() { return *matmul_plans_; }
  // A table of `count` values on the device (Staging::Upload).
  template <typename T>
  const T* Upload(const T* values, size_t count) {
    CAIRN_CHECK(!recording_, "a table is sent while ops are recorded");
    return static_cast<const T*>(staging_.Upload(index_, stream_, values, count * sizeof(T)));
  }

  // Where it is set, ops take their tables from there and send none; it must live until it is set to null.
  void UseTables(const StepTables* tables) { step_tables_ = tables; }
  const StepTables* step_tables() const { return step_tables_; }
  // While ops are recorded nothing may be sent: a replay would send what the host has there by then.
  void SetRecording(bool on) { recording_ = on; }

  // For building a table in; kept so that its memory is.
  std::vector<int32_t>& table_words() { return table_words_; }

  void Synchronize();
  // `rows` rows of `width` bytes; those of the device lie `pitch` apart, the host's have no gaps. CopyIn has read the
  // source when it returns (it goes through pinned memory, so that it need not wait); CopyOut has written the target.
  void CopyIn(void* to, size_t pitch, const void* from, size_t width, size_t rows);
  void CopyOut(void* to, const void* from, size_t pitch, size_t width, size_t rows);
  void CopyWithin(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows);
  void Clear(void* to, size_t pitch, size_t width, size_t rows);

 private:
  explicit DeviceState(int index) : index_(index) {}
  absl::Status Initialize();

  int index_;
  std::string id_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<MatMulPlans> matmul_plans_;
  Staging staging_;
  std::vector<int32_t> table_words_;
  const StepTables* step_tables_ = nullptr;
  bool recording_ = false;
};

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_DEVICE_STATE_H_
