// A matrix that a scorer needs between two ops. Its memory grows to the largest one asked for and stays.
#ifndef CAIRN_COMPRESSION_SCORERS_TEMPORARY_H_
#define CAIRN_COMPRESSION_SCORERS_TEMPORARY_H_

#include <algorithm>
#include <utility>

#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

class Temporary {
 public:
  // [rows, columns] f32, valid until the next call.
  Tensor Floats(const Context& context, int64_t rows, int64_t columns) {
    const size_t bytes = static_cast<size_t>(rows * columns) * sizeof(float);
    if (buffer_.size_bytes() < bytes || buffer_.device() != context.device()) {
      // Half as much again: prompts come in many lengths.
      absl::StatusOr<Buffer> larger = Buffer::Allocate(context.device(), bytes + bytes / 2);
      CAIRN_CHECK(larger.ok(), "memory of a scorer: ", larger.status().ToString());
      buffer_ = std::move(larger).value();
    }
    return Tensor(buffer_.data(), DType::kFloat32, {rows, columns}, context.device());
  }

 private:
  Buffer buffer_;
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_SCORERS_TEMPORARY_H_
