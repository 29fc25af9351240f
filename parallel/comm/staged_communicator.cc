#include "parallel/comm/staged_communicator.h"

#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/tensor_checks.h"

namespace cairn {

absl::StatusOr<Tensor> StagedCommunicator::Room(PinnedMemory& memory, const Tensor& data) {
  if (memory.size_bytes() < data.size_bytes()) {
    CAIRN_ASSIGN_OR_RETURN(memory, PinnedMemory::Allocate(context_->device(), data.size_bytes()));
  }
  return Tensor(memory.data(), data.dtype(), {data.num_elements()});
}

absl::StatusOr<Tensor> StagedCommunicator::Fetch(const char* operation, const Tensor& data) {
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor(operation, data, context_->device()));
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged, Room(in_, data));
  if (data.size_bytes() > 0) CopyToHost(*context_, data, staged.raw());
  return staged;
}

absl::Status StagedCommunicator::AllReduce(const Tensor& data, ReduceOp op) {
  if (data.device().is_cpu()) return host_->AllReduce(data, op);
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged, Fetch("AllReduce", data));
  CAIRN_RETURN_IF_ERROR(host_->AllReduce(staged, op));
  CopyFromHost(*context_, staged.raw(), data);
  return absl::OkStatus();
}

absl::Status StagedCommunicator::AllGather(const Tensor& in, const Tensor& out) {
  if (in.device().is_cpu() && out.device().is_cpu()) return host_->AllGather(in, out);
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged_in, Fetch("AllGather", in));
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("AllGather", out, context_->device()));
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged_out, Room(out_, out));
  CAIRN_RETURN_IF_ERROR(host_->AllGather(staged_in, staged_out));
  CopyFromHost(*context_, staged_out.raw(), out);
  return absl::OkStatus();
}

absl::Status StagedCommunicator::Gather(const Tensor& in, const Tensor& out, int root) {
  if (in.device().is_cpu()) return host_->Gather(in, out, root);
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged_in, Fetch("Gather", in));
  if (rank() != root) return host_->Gather(staged_in, {}, root);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Gather", out, context_->device()));
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged_out, Room(out_, out));
  CAIRN_RETURN_IF_ERROR(host_->Gather(staged_in, staged_out, root));
  CopyFromHost(*context_, staged_out.raw(), out);
  return absl::OkStatus();
}

absl::Status StagedCommunicator::Broadcast(const Tensor& data, int root) {
  if (data.device().is_cpu()) return host_->Broadcast(data, root);
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged, Fetch("Broadcast", data));
  CAIRN_RETURN_IF_ERROR(host_->Broadcast(staged, root));
  if (rank() != root) CopyFromHost(*context_, staged.raw(), data);
  return absl::OkStatus();
}

absl::Status StagedCommunicator::Send(const Tensor& data, int destination) {
  if (data.device().is_cpu()) return host_->Send(data, destination);
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged, Fetch("Send", data));
  return host_->Send(staged, destination);
}

absl::Status StagedCommunicator::Recv(const Tensor& data, int source) {
  if (data.device().is_cpu()) return host_->Recv(data, source);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Recv", data, context_->device()));
  CAIRN_ASSIGN_OR_RETURN(const Tensor staged, Room(in_, data));
  CAIRN_RETURN_IF_ERROR(host_->Recv(staged, source));
  CopyFromHost(*context_, staged.raw(), data);
  return absl::OkStatus();
}

}  // namespace cairn
