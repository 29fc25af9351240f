#include "engine/model/workspace.h"

#include <array>
#include <utility>

#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<Workspace> Workspace::Create(Device device, const WorkspaceShape& shape) {
  struct Part {
    Tensor Workspace::*tensor;
    DType dtype;
    int64_t rows, columns;
  };
  const std::array<Part, 11> parts = {{
      {&Workspace::ids, DType::kInt32, shape.max_tokens, 1},
      {&Workspace::positions, DType::kInt32, shape.max_tokens, 1},
      {&Workspace::hidden, DType::kFloat32, shape.max_tokens, shape.hidden},
      {&Workspace::normed, DType::kFloat32, shape.max_tokens, shape.hidden},
      {&Workspace::qkv, DType::kFloat32, shape.max_tokens, shape.qkv},
      {&Workspace::attention, DType::kFloat32, shape.max_tokens, shape.attention},
      {&Workspace::gate_up, DType::kFloat32, shape.max_tokens, 2 * shape.intermediate},
      {&Workspace::activated, DType::kFloat32, shape.max_tokens, shape.intermediate},
      {&Workspace::output, DType::kFloat32, shape.max_tokens, shape.hidden},
      {&Workspace::sampled, DType::kFloat32, shape.max_sampled, shape.hidden},
      {&Workspace::logits, DType::kFloat32, shape.max_sampled, shape.vocab},
  }};
  const auto bytes_of = [](int64_t elements) { return (static_cast<size_t>(elements) * 4 + 63) / 64 * 64; };
  size_t bytes = bytes_of(shape.vocab_scratch);
  for (const Part& part : parts) bytes += bytes_of(part.rows * part.columns);
  Workspace workspace;
  CAIRN_ASSIGN_OR_RETURN(workspace.memory, Buffer::Allocate(device, bytes));
  uint8_t* at = workspace.memory.data();
  for (const Part& part : parts) {
    workspace.*part.tensor = part.dtype == DType::kInt32 ? Tensor(at, part.dtype, {part.rows}, device)
                                                         : Tensor(at, part.dtype, {part.rows, part.columns}, device);
    at += bytes_of(part.rows * part.columns);
  }
  workspace.vocab_scratch = Tensor(at, DType::kFloat32, {shape.vocab_scratch}, device);
  return workspace;
}

}  // namespace cairn
