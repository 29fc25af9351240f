#include "engine/model/workspace.h"

#include <array>

#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<Workspace> Workspace::Create(Device device, const WorkspaceShape& shape) {
  struct Part {
    Tensor Workspace::*tensor;
    DType dtype;
    int64_t rows, columns;

    size_t bytes() const { return (static_cast<size_t>(rows * columns) * DTypeSize(dtype) + 63) / 64 * 64; }
  };
  const DType f32 = DType::kFloat32, activation = shape.activations;
  const int64_t partial_rows = shape.sums_over_ranks && activation != f32 ? shape.max_tokens : 0;
  const std::array<Part, 13> parts = {{
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
  size_t bytes = 0;
  for (const Part& part : parts) bytes += part.bytes();
  Workspace workspace;
  CAIRN_ASSIGN_OR_RETURN(workspace.memory, Buffer::Allocate(device, bytes));
  uint8_t* at = workspace.memory.data();
  for (const Part& part : parts) {
    const bool is_flat = part.dtype == DType::kInt32 || part.tensor == &Workspace::vocab_scratch;
    workspace.*part.tensor = is_flat ? Tensor(at, part.dtype, {part.rows}, device)
                                     : Tensor(at, part.dtype, {part.rows, part.columns}, device);
    at += part.bytes();
  }
  if (activation == f32) workspace.partial = workspace.output;
  return workspace;
}

}  // namespace cairn
