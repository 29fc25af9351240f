#include "kernels/core/context.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"

namespace cairn {

std::unique_ptr<Context> Context::Cpu(int num_threads, DType activation_dtype) {
  absl::StatusOr<const cpu::Kernels*> kernels = cpu::KernelsFromEnvironment();
  CAIRN_CHECK(kernels.ok(), kernels.status().message());
  return Cpu(num_threads, activation_dtype, **kernels);
}

std::unique_ptr<Context> Context::Cpu(int num_threads, DType activation_dtype, const cpu::Kernels& kernels) {
  return std::unique_ptr<Context>(new Context(Device{}, num_threads, activation_dtype, &kernels));
}

absl::Status Context::CheckEnvironment() { return cpu::KernelsFromEnvironment().status(); }

Context::Context(Device device, int num_threads, DType activation_dtype, const cpu::Kernels* cpu_kernels)
    : device_(device),
      activation_dtype_(activation_dtype),
      cpu_kernels_(cpu_kernels),
      threads_(num_threads),
      scratch_(num_threads + 1) {}

const char* Context::isa_name() const { return cpu_kernels_->name; }

void* Context::Scratch(int worker, size_t bytes) {
  Buffer& buffer = scratch_[worker];
  if (buffer.size_bytes() < bytes) {
    // Half as much again, so that a slowly growing need settles after a few steps.
    absl::StatusOr<Buffer> larger = Buffer::Allocate(device_, std::max(bytes, buffer.size_bytes() * 3 / 2));
    CAIRN_CHECK(larger.ok(), "scratch memory: ", larger.status().ToString());
    buffer = std::move(larger).value();
  }
  return buffer.data();
}

}  // namespace cairn
