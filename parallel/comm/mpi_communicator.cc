#include "parallel/comm/mpi_communicator.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/host_collectives.h"
#include "parallel/comm/reduce.h"
#include "parallel/comm/tensor_checks.h"

namespace cairn {
namespace {

uint8_t* BytesOf(const Tensor& tensor) { return static_cast<uint8_t*>(tensor.raw()); }

}  // namespace

MpiCommunicator::MpiCommunicator(std::unique_ptr<MpiGroup> group) : group_(std::move(group)) {
  const HostLayout& layout = group_->layout();
  std::vector<int> seen(layout.num_hosts(), 0);
  for (int rank = 0; rank < size(); ++rank) {
    const int host = layout.host_of[rank];
    if (runs_.empty() || runs_.back().host != host) runs_.push_back({host, {}});
    runs_.back().locals.push_back(seen[host]++);
  }
  num_columns_ = *std::min_element(seen.begin(), seen.end());
}

absl::Status MpiCommunicator::AllReduce(const Tensor& data, ReduceOp op) {
  CAIRN_RETURN_IF_ERROR(CheckReducible("AllReduce", data));
  group_->runtime()->Progress();
  if (size() == 1) return absl::OkStatus();
  if (one_host()) return HostAllReduce(group_->window(), data.raw(), data.num_elements(), data.dtype(), op);
  const size_t element_bytes = DTypeSize(data.dtype());
  const int64_t per_step = static_cast<int64_t>(HostWindow::kSlotBytes / element_bytes);
  for (int64_t begin = 0; begin < data.num_elements(); begin += per_step) {
    const int64_t count = std::min(per_step, data.num_elements() - begin);
    CAIRN_RETURN_IF_ERROR(ReduceAcrossHosts(BytesOf(data) + begin * element_bytes, count, data.dtype(), op));
  }
  return absl::OkStatus();
}

// One step. The exact sum in rank order, whatever the hosts: each column (the i-th rank of every host) takes a slice;
// the partial sum travels from run to run, and the last run's host tells the others the total.
absl::Status MpiCommunicator::ReduceAcrossHosts(uint8_t* data, int64_t count, DType dtype, ReduceOp op) {
  HostWindow& window = group_->window();
  const size_t element_bytes = DTypeSize(dtype), bytes = count * element_bytes;
  CAIRN_RETURN_IF_ERROR(window.Begin({WindowOperation::kAllReduce, bytes}));
  std::memcpy(window.slot(window.rank()), data, bytes);
  window.Arrive();
  if (window.rank() < num_columns_) {
    CAIRN_RETURN_IF_ERROR(window.WaitAllArrived());
    const SliceRange mine = SliceOf(count, num_columns_, window.rank(), element_bytes);
    CAIRN_RETURN_IF_ERROR(ReduceColumn(mine.begin * element_bytes, mine.end - mine.begin, dtype, op));
    window.MarkReduced();
  }
  for (int column = 0; column < num_columns_; ++column) CAIRN_RETURN_IF_ERROR(window.WaitReduced(column));
  std::memcpy(data, window.result(), bytes);
  window.Finish();
  return absl::OkStatus();
}

absl::Status MpiCommunicator::ReduceColumn(size_t offset_bytes, int64_t count, DType dtype, ReduceOp op) {
  if (count == 0) return absl::OkStatus();
  HostWindow& window = group_->window();
  const HostLayout& layout = group_->layout();
  const int column = window.rank(), num_runs = static_cast<int>(runs_.size());
  const size_t bytes = count * DTypeSize(dtype);
  const auto peer = [&](int host) { return layout.ranks[host][column]; };
  uint8_t* total = window.result() + offset_bytes;
  prefix_.resize(HostWindow::kSlotBytes);
  for (int run = 0; run < num_runs; ++run) {
    if (runs_[run].host != group_->host_index()) continue;
    std::vector<const void*> terms;
    if (run > 0) {
      CAIRN_RETURN_IF_ERROR(RecvCollective("AllReduce", peer(runs_[run - 1].host), prefix_.data(), bytes));
      terms.push_back(prefix_.data());
    }
    for (int local : runs_[run].locals) terms.push_back(window.slot(local) + offset_bytes);
    ReduceInRankOrder(terms, count, dtype, op, total);
    if (run + 1 < num_runs) CAIRN_RETURN_IF_ERROR(SendCollective(peer(runs_[run + 1].host), total, bytes));
  }
  const int last = runs_.back().host;
  if (group_->host_index() != last) return RecvCollective("AllReduce", peer(last), total, bytes);
  for (int host = 0; host < layout.num_hosts(); ++host) {
    if (host != last) CAIRN_RETURN_IF_ERROR(SendCollective(peer(host), total, bytes));
  }
  return absl::OkStatus();
}

absl::Status MpiCommunicator::AllGather(const Tensor& in, const Tensor& out) {
  CAIRN_RETURN_IF_ERROR(CheckGathered("AllGather", in, out, size()));
  group_->runtime()->Progress();
  const size_t bytes = in.size_bytes();
  if (one_host()) return HostAllGather(group_->window(), BytesOf(in), bytes, BytesOf(out));
  if (bytes > 0) std::memmove(BytesOf(out) + rank() * bytes, in.raw(), bytes);
  for (int root = 0; root < size(); ++root) {
    CAIRN_RETURN_IF_ERROR(BroadcastAcrossHosts(WindowOperation::kAllGather, BytesOf(out) + root * bytes, bytes, root));
  }
  return absl::OkStatus();
}

absl::Status MpiCommunicator::Gather(const Tensor& in, const Tensor& out, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Gather", root, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Gather", in));
  if (rank() == root) CAIRN_RETURN_IF_ERROR(CheckGathered("Gather", in, out, size()));
  group_->runtime()->Progress();
  return GatherAcrossHosts(BytesOf(in), in.size_bytes(), rank() == root ? BytesOf(out) : nullptr, root);
}

absl::Status MpiCommunicator::GatherAcrossHosts(const uint8_t* in, size_t bytes, uint8_t* out, int root) {
  if (bytes == 0) return absl::OkStatus();
  if (!group_->is_local(root)) return SendCollective(root, in, bytes);
  const std::vector<int>& locals = group_->local_ranks();
  std::vector<uint8_t*> parts(locals.size(), nullptr);
  for (size_t i = 0; i < locals.size() && out != nullptr; ++i) parts[i] = out + locals[i] * bytes;
  const int local_root = static_cast<int>(std::find(locals.begin(), locals.end(), root) - locals.begin());
  CAIRN_RETURN_IF_ERROR(HostGather(group_->window(), in, bytes, parts, local_root));
  if (rank() != root) return absl::OkStatus();
  for (int source = 0; source < size(); ++source) {
    if (!group_->is_local(source)) {
      CAIRN_RETURN_IF_ERROR(RecvCollective("Gather", source, out + source * bytes, bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status MpiCommunicator::Broadcast(const Tensor& data, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Broadcast", root, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Broadcast", data));
  group_->runtime()->Progress();
  return BroadcastAcrossHosts(WindowOperation::kBroadcast, BytesOf(data), data.size_bytes(), root);
}

// From the root to the first rank of every other host, and from there through the window.
absl::Status MpiCommunicator::BroadcastAcrossHosts(WindowOperation::Kind kind, uint8_t* data, size_t bytes, int root) {
  if (bytes == 0) return absl::OkStatus();
  const HostLayout& layout = group_->layout();
  const int first = group_->local_ranks().front();
  const int local_source = group_->is_local(root) ? root : first;
  if (rank() == root) {
    for (int host = 0; host < layout.num_hosts(); ++host) {
      if (host == group_->host_index()) continue;
      CAIRN_RETURN_IF_ERROR(SendCollective(layout.ranks[host].front(), data, bytes));
    }
  } else if (rank() == local_source) {
    CAIRN_RETURN_IF_ERROR(RecvCollective(WindowOperation::Name(kind), root, data, bytes));
  }
  const std::vector<int>& locals = group_->local_ranks();
  const int index = static_cast<int>(std::find(locals.begin(), locals.end(), local_source) - locals.begin());
  return HostBroadcast(group_->window(), kind, data, bytes, index);
}

absl::Status MpiCommunicator::SendCollective(int to, const void* data, size_t bytes) {
  return group_->link().Send(to, MpiLink::kCollectives, 0, data, bytes);
}

absl::Status MpiCommunicator::RecvCollective(const char* operation, int source, void* data, size_t bytes) {
  return RecvExactly(
      operation, source, static_cast<uint8_t*>(data), bytes,
      [&] { return group_->link().Poll(source, MpiLink::kCollectives); }, [] {});
}

absl::Status MpiCommunicator::Send(const Tensor& data, int destination) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Send", destination, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Send", data));
  group_->runtime()->Progress();
  return group_->Send(destination, 0, data.raw(), data.size_bytes());
}

absl::Status MpiCommunicator::Recv(const Tensor& data, int source) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Recv", source, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Recv", data));
  group_->runtime()->Progress();
  return RecvExactly(
      "Recv", source, BytesOf(data), data.size_bytes(), [&] { return group_->Poll(source); },
      [&] { group_->Pop(source); });
}

template <typename Poll, typename Pop>
absl::Status MpiCommunicator::RecvExactly(const char* operation, int source, uint8_t* data, size_t bytes, Poll poll,
                                          Pop pop) {
  const WaitPolicy& policy = group_->runtime()->policy();
  uint64_t received = 0, message_bytes = 0;
  do {
    Waiter waiter(policy);
    std::optional<MessagePiece> piece;
    for (;;) {
      CAIRN_ASSIGN_OR_RETURN(piece, poll());
      if (piece.has_value()) break;
      if (waiter.Pause([this] { group_->runtime()->Progress(); })) continue;
      return group_->Late(operation, absl::StrCat("rank ", source), policy.timeout_seconds);
    }
    message_bytes = piece->message_bytes;
    // A message of another size is read to its end, so that the next one can be.
    if (message_bytes == bytes && piece->bytes > 0) std::memcpy(data + received, piece->data, piece->bytes);
    received += piece->bytes;
    pop();
  } while (received < message_bytes);
  if (message_bytes == bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(operation, " on rank ", rank(), " of ", size(), ": expected ", bytes,
                                                 " bytes from rank ", source, ", which sent ", message_bytes));
}

}  // namespace cairn
