#include "kernels/core/context.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#if CAIRN_CUDA
#include "kernels/cuda/device_state.h"
#else
namespace cairn::cuda {
class DeviceState {};  // never made
}  // namespace cairn::cuda
#endif

namespace cairn {

std::unique_ptr<Context> Context::Cpu(int num_threads, DType activation_dtype) {
  absl::StatusOr<const cpu::Kernels*> kernels = cpu::KernelsFromEnvironment();
  CAIRN_CHECK(kernels.ok(), kernels.status().message());
  return Cpu(num_threads, activation_dtype, **kernels);
}

std::unique_ptr<Context> Context::Cpu(int num_threads, DType activation_dtype, const cpu::Kernels& kernels) {
  return std::unique_ptr<Context>(new Context(Device{}, num_threads, activation_dtype, &kernels, nullptr));
}

absl::Status Context::CheckEnvironment() { return cpu::KernelsFromEnvironment().status(); }

#if CAIRN_CUDA

absl::StatusOr<std::unique_ptr<Context>> Context::Cuda(int index, DType activation_dtype) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<cuda::DeviceState> state, cuda::DeviceState::Create(index));
  return std::unique_ptr<Context>(
      new Context({DeviceKind::kCuda, index}, /*num_threads=*/1, activation_dtype, nullptr, std::move(state)));
}

int Context::NumCudaDevices() { return cuda::NumDevices(); }

std::vector<std::string> Context::CudaDeviceIds() {
  std::vector<std::string> ids;
  for (int index = 0; index < cuda::NumDevices(); ++index) ids.push_back(cuda::DeviceId(index));
  return ids;
}

void Context::Synchronize() {
  if (cuda_ != nullptr) cuda_->Synchronize();
}

Context::MemoryInfo Context::device_memory() const {
  MemoryInfo info;
  if (cuda_ != nullptr) cuda_->GetMemory(&info.free_bytes, &info.total_bytes);
  return info;
}

std::string Context::device_id() const { return cuda_ == nullptr ? "" : cuda_->id(); }

#else

absl::StatusOr<std::unique_ptr<Context>> Context::Cuda(int, DType) {
  return absl::FailedPreconditionError("this build has no CUDA backend: build it where nvcc is found");
}

int Context::NumCudaDevices() { return 0; }

std::vector<std::string> Context::CudaDeviceIds() { return {}; }

void Context::Synchronize() {}

Context::MemoryInfo Context::device_memory() const { return {}; }

std::string Context::device_id() const { return ""; }

#endif

Context::Context(Device device, int num_threads, DType activation_dtype, const cpu::Kernels* cpu_kernels,
                 std::unique_ptr<cuda::DeviceState> cuda)
    : device_(device),
      activation_dtype_(activation_dtype),
      cpu_kernels_(cpu_kernels),
      cuda_(std::move(cuda)),
      threads_(num_threads),
      scratch_(num_threads + 1) {}

Context::~Context() = default;

const char* Context::isa_name() const { return device_.is_cpu() ? cpu_kernels_->name : "cuda"; }

void* Context::Scratch(int worker, size_t bytes) {
  Buffer& buffer = scratch_[worker];
  if (buffer.size_bytes() < bytes) {
    // Half as much again, so that a slowly growing need settles after a few steps.
    absl::StatusOr<Buffer> larger = Buffer::Allocate(device_, std::max(bytes, buffer.size_bytes() * 3 / 2));
    CAIRN_CHECK(larger.ok(), "scratch memory: ", larger.status().ToString());
    buffer = std::move(larger).value();
    ++scratch_allocations_;
  }
  return buffer.data();
}

}  // namespace cairn
