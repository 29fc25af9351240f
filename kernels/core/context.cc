#include "kernels/core/context.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace cairn {

std::unique_ptr<Context> Context::Cpu(int num_threads, DType activation_dtype) {
  return std::unique_ptr<Context>(new Context(Device{}, num_threads, activation_dtype));
}

Context::Context(Device device, int num_threads, DType activation_dtype)
    : device_(device), activation_dtype_(activation_dtype), threads_(num_threads), scratch_(num_threads) {}

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
