#include "kernels/cuda/device_state.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check_cuda.h"
#include "kernels/core/status_macros.h"

namespace cairn::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{8} << 20;
constexpr size_t kTableAlignment = 256;

size_t RoundUp(size_t bytes) { return (bytes + kTableAlignment - 1) / kTableAlignment * kTableAlignment; }

}  // namespace

int NumDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string DeviceId(int index) {
  cudaDeviceProp properties = {};
  CAIRN_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  std::string id;
  for (const char byte : properties.uuid.bytes) {
    absl::StrAppend(&id, absl::Hex(static_cast<uint8_t>(byte), absl::kZeroPad2));
  }
  return id;
}

absl::Status Staging::Reserve(int device, size_t bytes) {
  const Device gpu = {DeviceKind::kCuda, device};
  CAIRN_ASSIGN_OR_RETURN(Buffer larger, Buffer::Allocate(gpu, bytes));
  if (device_.size_bytes() > 0) outgrown_.push_back(std::move(device_));
  device_ = std::move(larger);
  pinned_ = PinnedMemory();  // given back before the larger one is taken
  CAIRN_ASSIGN_OR_RETURN(pinned_, PinnedMemory::Allocate(gpu, bytes));
  used_ = 0;
  for (Table& table : last_) table = Table();
  return absl::OkStatus();
}

const void* Staging::Upload(int device, cudaStream_t stream, const void* data, size_t bytes) {
  for (const Table& table : last_) {
    if (table.bytes == bytes && bytes > 0 && std::memcmp(pinned_.data() + table.begin, data, bytes) == 0) {
      return device_.data() + table.begin;
    }
  }
  const size_t begin = Take(device, stream, bytes);
  std::memcpy(pinned_.data() + begin, data, bytes);
  CAIRN_CUDA_CHECK(
      cudaMemcpyAsync(device_.data() + begin, pinned_.data() + begin, bytes, cudaMemcpyHostToDevice, stream));
  last_[1] = std::exchange(last_[0], {begin, bytes});
  return device_.data() + begin;
}

const void* Staging::Pin(int device, cudaStream_t stream, const void* data, size_t bytes) {
  CAIRN_CHECK(bytes <= kMaxPiece, bytes);
  const size_t begin = Take(device, stream, bytes);
  std::memcpy(pinned_.data() + begin, data, bytes);
  return pinned_.data() + begin;
}

size_t Staging::Take(int device, cudaStream_t stream, size_t bytes) {
  if (used_ + bytes > device_.size_bytes()) {
    // Everything that read the memory must be done before it is used again.
    CAIRN_CUDA_CHECK(cudaStreamSynchronize(stream));
    if (bytes > device_.size_bytes()) {
      const absl::Status status = Reserve(device, std::max(2 * device_.size_bytes(), RoundUp(bytes)));
      CAIRN_CHECK(status.ok(), "staging memory: ", status.ToString());
    }
    used_ = 0;
    for (Table& table : last_) table = Table();
  }
  const size_t begin = used_;
  used_ = std::min(device_.size_bytes(), RoundUp(begin + bytes));
  return begin;
}

absl::StatusOr<std::unique_ptr<DeviceState>> DeviceState::Create(int index) {
  const int count = NumDevices();
  if (index < 0 || index >= count) {
    return absl::UnavailableError(absl::StrCat("no GPU ", index, ": CUDA sees ", count,
                                               " (check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES)"));
  }
  std::unique_ptr<DeviceState> state(new DeviceState(index));
  CAIRN_RETURN_IF_ERROR(state->Initialize());
  return state;
}

absl::Status DeviceState::Initialize() {
  if (const cudaError_t error = cudaSetDevice(index_); error != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat("GPU ", index_, ": ", cudaGetErrorString(error)));
  }
  id_ = DeviceId(index_);
  CAIRN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  CAIRN_ASSIGN_OR_RETURN(matmul_plans_, MatMulPlans::Create(index_));
  return staging_.Reserve(index_, kStagingBytes);
}

DeviceState::~DeviceState() {
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

void DeviceState::GetMemory(int64_t* free_bytes, int64_t* total_bytes) const {
  CAIRN_CUDA_CHECK(cudaSetDevice(index_));
  size_t free_now = 0, total = 0;
  CAIRN_CUDA_CHECK(cudaMemGetInfo(&free_now, &total));
  *free_bytes = static_cast<int64_t>(free_now);
  *total_bytes = static_cast<int64_t>(total);
}

void DeviceState::Synchronize() { CAIRN_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

void DeviceState::CopyIn(void* to, size_t pitch, const void* from, size_t width, size_t rows) {
  CAIRN_CHECK(!recording_, "host memory is copied while ops are recorded");
  if (width == 0) return;
  const auto copy = [&](size_t row, size_t column, size_t bytes, size_t count) {  // `count` rows of `bytes`
    const void* pinned =
        staging_.Pin(index_, stream_, static_cast<const char*>(from) + row * width + column, bytes * count);
    CAIRN_CUDA_CHECK(cudaMemcpy2DAsync(static_cast<char*>(to) + row * pitch + column, pitch, pinned, bytes, bytes,
                                       count, cudaMemcpyHostToDevice, stream_));
  };
  const size_t at_once = Staging::kMaxPiece / width;
  if (at_once > 0) {
    for (size_t row = 0; row < rows; row += at_once) copy(row, 0, width, std::min(at_once, rows - row));
    return;
  }
  for (size_t row = 0; row < rows; ++row) {  // rows that are more than a piece
    for (size_t column = 0; column < width; column += Staging::kMaxPiece) {
      copy(row, column, std::min(Staging::kMaxPiece, width - column), 1);
    }
  }
}

void DeviceState::CopyOut(void* to, const void* from, size_t pitch, size_t width, size_t rows) {
  CAIRN_CUDA_CHECK(cudaMemcpy2DAsync(to, width, from, pitch, width, rows, cudaMemcpyDeviceToHost, stream_));
  Synchronize();
}

void DeviceState::CopyWithin(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                             size_t rows) {
  CAIRN_CUDA_CHECK(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToDevice, stream_));
}

void DeviceState::Clear(void* to, size_t pitch, size_t width, size_t rows) {
  CAIRN_CUDA_CHECK(cudaMemset2DAsync(to, pitch, 0, width, rows, stream_));
}

}  // namespace cairn::cuda
