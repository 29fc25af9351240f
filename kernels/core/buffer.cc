#include "kernels/core/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#if CAIRN_CUDA
#include "kernels/core/buffer_cuda.h"
#endif

namespace cairn {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Small buffers come from the heap; from one huge page up they are mapped, and the kernel zeroes pages on first touch.
bool IsMapped(size_t bytes) { return bytes >= kHugePage; }

// Maps one huge page more than asked and gives back what lies outside the aligned part.
void* MapAligned(size_t bytes) {
  const size_t length = RoundUp(bytes, kHugePage);
  void* raw = mmap(nullptr, length + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(raw);
  char* aligned = reinterpret_cast<char*>(RoundUp(reinterpret_cast<size_t>(raw), kHugePage));
  if (aligned > begin) munmap(begin, aligned - begin);
  const size_t tail = (begin + length + kHugePage) - (aligned + length);
  if (tail > 0) munmap(aligned + length, tail);
  madvise(aligned, length, MADV_HUGEPAGE);  // advice only: without huge pages the memory still serves
  return aligned;
}

// On the host. RESOURCE_EXHAUSTED where there is none.
absl::StatusOr<void*> AllocateHost(size_t bytes) {
  void* data = nullptr;
  if (IsMapped(bytes)) {
    data = MapAligned(bytes);
  } else {
    const size_t padded = RoundUp(bytes, kAlignment);
    data = std::aligned_alloc(kAlignment, padded);
    if (data != nullptr) std::memset(data, 0, padded);
  }
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes of memory: ", strerror(errno)));
  }
  return data;
}

void FreeHost(void* data, size_t bytes) {
  if (IsMapped(bytes)) {
    munmap(data, RoundUp(bytes, kHugePage));
  } else {
    std::free(data);
  }
}

absl::StatusOr<void*> AllocateOn(Device device, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  if (device.is_cpu()) return AllocateHost(bytes);
#if CAIRN_CUDA
  return cuda::AllocateMemory(device.index, bytes);
#else
  return absl::FailedPreconditionError("this build has no CUDA backend");
#endif
}

}  // namespace

absl::StatusOr<Buffer> Buffer::Allocate(Device device, size_t bytes) {
  Buffer buffer;
  buffer.device_ = device;
  if (bytes == 0) return buffer;
  CAIRN_ASSIGN_OR_RETURN(void* data, AllocateOn(device, bytes));
  buffer.data_ = static_cast<uint8_t*>(data);
  buffer.size_bytes_ = bytes;
  return buffer;
}

void Buffer::Fill(const void* host, size_t bytes, size_t begin) {
  CAIRN_CHECK(begin <= size_bytes_ && bytes <= size_bytes_ - begin, bytes, " at ", begin, " into ", size_bytes_);
  if (bytes == 0) return;
#if CAIRN_CUDA
  if (!device_.is_cpu()) return cuda::FillMemory(device_.index, data_ + begin, host, bytes);
#endif
  std::memcpy(data_ + begin, host, bytes);
}

void Buffer::Clear() {
  if (data_ == nullptr) return;
#if CAIRN_CUDA
  if (!device_.is_cpu()) return cuda::ClearMemory(device_.index, data_, size_bytes_);
#endif
  std::memset(data_, 0, size_bytes_);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
    device_ = other.device_;
  }
  return *this;
}

void Buffer::Free() {
  if (data_ == nullptr) return;
#if CAIRN_CUDA
  if (!device_.is_cpu()) {
    cuda::FreeMemory(device_.index, data_);
  } else {
    FreeHost(data_, size_bytes_);
  }
#else
  FreeHost(data_, size_bytes_);
#endif
  data_ = nullptr;
  size_bytes_ = 0;
}

}  // namespace cairn
