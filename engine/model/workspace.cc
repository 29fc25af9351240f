#include "engine/model/workspace.h"

#include <array>

#include "kernels/core/status_macros.h"

namespace cairn {

namespace {

struct Part {
  Tensor Workspace::*tensor;
  DType dtype;
  int64_t rows, columns;

  size_t bytes() const { return (static_cast<size_t>(rows * columns) * DTypeSize(dtype) + 63) / 64 * 64; }
};

std::array<Part, 13> PartsOf(const WorkspaceShape& shape) {
  const DType f32 = DType::kFloat32, activation = shape.activations;
  const int64_t partial_rows = shape.sums_over_ranks && activation != f32 ? shape.max_tokens : 0;
  return {{
      {&Workspace::ids, DType::kInt32, shape.max_tokens, 1},
      {&Workspace::positions, DType::kInt32, shape.max_tokens, 1},
      {&Workspace::hidden, activation, shape.max_tokens, shape.hidden},
      {&Workspace::normed, activation, shape.max_tokens, shape.hidden},
      {&Workspace::qkv, activation, shape.max_tokens, shape.qkv},
      {&Workspace::attention, activation, shape.max_tokens, shape.attention},
      {&Workspace::gate_up, activation, shape.max_tokens, 2 * shape.intermediate},
      {&Workspace::activated, activation, shape.max_tokens, shape.intermediate},
      {&Workspace::output, activation, shape.max_tokens, shape.hidden},
      {&Workspace::partial, f32, partial_rows, shape.hidden},
      {&Workspace::sampled, activation, shape.max_sampled, shape.hidden},
      {&Workspace::logits, f32, shape.max_sampled, shape.vocab},
      {&Workspace::vocab_scratch, f32, shape.vocab_scratch, 1},
  }};
}

}  // namespace

int64_t WorkspaceShape::size_bytes() const {
  size_t bytes = 0;
  for (const Part& part : PartsOf(*this)) bytes += part.bytes();
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<Workspace> Workspace::Create(Device device, const WorkspaceShape& shape) {
  Workspace workspace;
  CAIRN_ASSIGN_OR_RETURN(workspace.memory, Buffer::Allocate(device, static_cast<size_t>(shape.size_bytes())));
  uint8_t* at = workspace.memory.data();
  for (const Part& part : PartsOf(shape)) {
    const bool is_flat = part.dtype == DType::kInt32 || part.tensor == &Workspace::vocab_scratch;
    workspace.*part.tensor = is_flat ? Tensor(at, part.dtype, {part.rows}, device)
                                     : Tensor(at, part.dtype, {part.rows, part.columns}, device);
    at += part.bytes();
  }
  if (shape.activations == DType::kFloat32) workspace.partial = workspace.output;
  return workspace;
}

}  // namespace cairn
