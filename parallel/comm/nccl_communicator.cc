#include "parallel/comm/nccl_communicator.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check_cuda.h"
#include "kernels/core/status_macros.h"
#include "kernels/cuda/device_state.h"
#include "parallel/comm/tensor_checks.h"
#include "parallel/comm/waiter.h"

namespace cairn {
namespace {

// How long other ranks are listened to, and ncclCommAbort is waited for, when the group is given up; less where the
// timeout is.
constexpr double kListenSeconds = 1, kAbortSeconds = 5;
// For messages that are still to leave when the communicator ends.
constexpr double kFlushSeconds = 5;

ncclRedOp_t ToNccl(ReduceOp op) { return op == ReduceOp::kSum ? ncclSum : op == ReduceOp::kMin ? ncclMin : ncclMax; }

double AtMost(double limit, double timeout) { return timeout > 0 ? std::min(limit, timeout) : limit; }

// The ids of the group's NCCL communicators, as rank 0 makes them; an error of its own as text.
std::string MakeIds(const NcclLibrary& library, int count) {
  std::string ids;
  for (int i = 0; i < count; ++i) {
    ncclUniqueId id;
    const ncclResult_t result = library.GetUniqueId(&id);
    if (result != ncclSuccess) return absl::StrCat("ncclGetUniqueId: ", library.GetErrorString(result));
    ids.append(id.internal, sizeof(id.internal));
  }
  return ids;
}

}  // namespace

NcclStream::NcclStream(Context& context, double timeout_seconds)
    : device(context.device()), stream(context.cuda().stream()), timeout_seconds(timeout_seconds) {}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(const NcclLibrary* library,
                                                                           std::shared_ptr<NcclStream> stream,
                                                                           NcclUse use,
                                                                           std::unique_ptr<ControlChannel> control,
                                                                           std::unique_ptr<Communicator> host) {
  CAIRN_CUDA_CHECK(cudaSetDevice(stream->device.index));
  const int num_lanes = use == NcclUse::kPipeline ? 2 : 1;
  const std::string ids = control->rank() == 0 ? MakeIds(*library, num_lanes) : "";
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<NcclPeers> peers,
                         NcclPeers::Meet(std::move(control), absl::StrCat("GPU ", stream->device.index), ids));
  std::unique_ptr<NcclCommunicator> communicator(
      new NcclCommunicator(library, std::move(stream), std::move(peers), std::move(host)));
  CAIRN_RETURN_IF_ERROR(communicator->StartLanes(use));
  return communicator;
}

NcclCommunicator::NcclCommunicator(const NcclLibrary* library, std::shared_ptr<NcclStream> stream,
                                   std::unique_ptr<NcclPeers> peers, std::unique_ptr<Communicator> host)
    : library_(library),
      stream_(std::move(stream)),
      peers_(std::move(peers)),
      host_(std::move(host)),
      copies_(stream_->device, stream_->stream) {
  stream_->communicators.push_back(this);
  CAIRN_CUDA_CHECK(cudaStreamCreateWithFlags(&send_stream_, cudaStreamNonBlocking));
}

absl::Status NcclCommunicator::StartLanes(NcclUse use) {
  const size_t num_lanes = use == NcclUse::kPipeline ? 2 : 1;
  const std::string& ids = peers_->note(0);
  if (ids.size() != num_lanes * sizeof(ncclUniqueId)) {
    return absl::UnavailableError(absl::StrCat(peers_->Name(0), ": ", ids));
  }
  first_pending_ = "the start of NCCL";
  num_pending_ = 1;
  for (size_t i = 0; i < num_lanes; ++i) {
    ncclUniqueId id;
    std::memcpy(&id, ids.data() + i * sizeof(id), sizeof(id));
    absl::StatusOr<std::unique_ptr<NcclLane>> lane =
        NcclLane::Start(library_, stream_->device.index, size(), rank(), id);
    if (!lane.ok()) return GiveUp({GroupReport::Kind::kError, std::string(lane.status().message())});
    lanes_.push_back(*std::move(lane));
  }
  for (const auto& lane : lanes_) CAIRN_RETURN_IF_ERROR(Settle(*lane));
  num_pending_ = 0;
  return use == NcclUse::kPipeline ? ConnectNeighbours() : absl::OkStatus();
}

// NCCL connects two ranks for the first message between them, when both ends have called: a sender would wait there for
// its receiver, and two that send to each other first for ever. So neighbours exchange a byte at the start.
absl::Status NcclCommunicator::ConnectNeighbours() {
  if (size() == 1) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const Buffer bytes, Buffer::Allocate(stream_->device, 3));
  std::vector<int> neighbours = {(rank() + 1) % size()};
  if (size() > 2) neighbours.push_back((rank() + size() - 1) % size());
  for (const auto& lane : lanes_) {
    CAIRN_RETURN_IF_ERROR(Issue("The first messages", kNoPeer, *lane, [&] {
      ncclResult_t result = library_->GroupStart();
      const auto add = [&](ncclResult_t added) {
        if (result == ncclSuccess && added != ncclInProgress) result = added;  // the group's end will say
      };
      for (size_t i = 0; i < neighbours.size() && result == ncclSuccess; ++i) {
        const int peer = neighbours[i];
        if (&LaneOfMessages(rank()) == lane.get()) {
          add(library_->Send(bytes.data(), 1, ncclInt8, peer, lane->comm(), stream_->stream));
        }
        if (&LaneOfMessages(peer) == lane.get()) {
          add(library_->Recv(bytes.data() + 1 + i, 1, ncclInt8, peer, lane->comm(), stream_->stream));
        }
      }
      const ncclResult_t ended = library_->GroupEnd();
      return result == ncclSuccess ? ended : result;
    }));
  }
  return Synchronize();
}

NcclCommunicator::~NcclCommunicator() {
  std::vector<NcclCommunicator*>& all = stream_->communicators;
  all.erase(std::remove(all.begin(), all.end(), this), all.end());
  cudaSetDevice(stream_->device.index);
  Waiter waiter({.timeout_seconds = AtMost(kFlushSeconds, stream_->timeout_seconds)});
  while (cudaStreamQuery(send_stream_) == cudaErrorNotReady) {
    if (waiter.Pause([this] { peers_->Poll().IgnoreError(); })) continue;
    for (const auto& lane : lanes_) lane->Abort(kAbortSeconds);
    break;
  }
  lanes_.clear();
  cudaStreamDestroy(send_stream_);
}

bool NcclCommunicator::IsCapturing() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CAIRN_CUDA_CHECK(cudaStreamIsCapturing(stream_->stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

// --- What goes wrong ---

absl::Status NcclCommunicator::Issue(const char* operation, int peer, NcclLane& lane,
                                     absl::FunctionRef<ncclResult_t()> call) {
  if (!failure_.ok()) return failure_;
  if (num_pending_++ == 0) first_pending_ = peer < 0 ? operation : absl::StrCat(operation, " rank ", peer);
  const ncclResult_t result = call();
  if (result == ncclSuccess) return absl::OkStatus();
  if (result == ncclInProgress) return Settle(lane);
  return GiveUp({GroupReport::Kind::kError, absl::StrCat("NCCL: ", lane.Describe(result))});
}

absl::Status NcclCommunicator::Settle(NcclLane& lane) {
  if (lane.State() == ncclSuccess) return absl::OkStatus();
  BeginWait();
  Waiter waiter({});
  for (;;) {
    CAIRN_RETURN_IF_ERROR(Poll());
    if (lane.State() == ncclSuccess) return absl::OkStatus();
    if (IsLate()) return GiveUp({GroupReport::Kind::kLate, ""});
    waiter.Pause([] {});
  }
}

// A Waiter's own clock starts when its looks get slower, and these are slow from the first.
bool NcclCommunicator::IsLate() const {
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - wait_begin_;
  return stream_->timeout_seconds > 0 && waited.count() > stream_->timeout_seconds;
}

absl::Status NcclCommunicator::Poll() {
  if (!failure_.ok()) return failure_;
  for (const auto& lane : lanes_) {
    const ncclResult_t state = lane->State();
    if (state == ncclSuccess || state == ncclInProgress) continue;
    return GiveUp({GroupReport::Kind::kError, absl::StrCat("NCCL: ", lane->Describe(state))});
  }
  const auto heard = peers_->Poll();
  if (!heard.ok()) return GiveUp({GroupReport::Kind::kError, std::string(heard.status().message())});
  if (!heard->has_value()) return absl::OkStatus();
  // Who is late for one rank is late for this one.
  const bool late = (*heard)->second.kind == GroupReport::Kind::kLate;
  return GiveUp({late ? GroupReport::Kind::kLate : GroupReport::Kind::kTold, ""}, *heard);
}

absl::Status NcclCommunicator::GiveUp(const GroupReport& mine,
                                      const std::optional<std::pair<int, GroupReport>>& heard) {
  if (!failure_.ok()) return failure_;
  const double timeout = stream_->timeout_seconds;
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - wait_begin_;
  std::string operation = num_pending_ == 0 ? "a graph's operations" : first_pending_;
  if (num_pending_ > 1) absl::StrAppend(&operation, ", the first of ", num_pending_, " operations that may be late,");
  failure_ = peers_->GiveUp(operation, mine, waited.count(), AtMost(kListenSeconds, timeout), heard);
  const double limit = AtMost(kAbortSeconds, timeout);
  bool ended = true;
  for (const auto& lane : lanes_) ended = lane->Abort(limit) && ended;
  if (!ended) {
    failure_ = absl::Status(failure_.code(), absl::StrCat(absl::string_view(failure_.message()),
                                                          "; ncclCommAbort has not come back after ", limit, " s"));
  }
  return failure_;
}

absl::Status NcclCommunicator::Synchronize() {
  std::vector<NcclCommunicator*>& all = stream_->communicators;
  Waiter waiter({});
  for (NcclCommunicator* communicator : all) communicator->BeginWait();
  absl::Status failure = failure_;
  while (failure.ok()) {
    const cudaError_t state = cudaStreamQuery(stream_->stream);
    if (state == cudaSuccess) {
      for (NcclCommunicator* communicator : all) communicator->num_pending_ = 0;
      return absl::OkStatus();
    }
    if (state != cudaErrorNotReady) CAIRN_CUDA_CHECK(state);
    for (NcclCommunicator* communicator : all) {
      failure = communicator->Poll();
      if (!failure.ok()) break;
    }
    if (failure.ok() && IsLate()) break;
    waiter.Pause([] {});
  }
  return failure.ok() ? GiveUpLate() : GiveUpOthers(failure);
}

// Of all that waits on the stream, what stands first is not known: the group where ranks are missing is to blame.
absl::Status NcclCommunicator::GiveUpLate() {
  absl::Status failure;
  for (NcclCommunicator* communicator : stream_->communicators) {
    if (communicator->num_pending_ == 0) continue;
    const absl::Status status = communicator->GiveUp({GroupReport::Kind::kLate, ""});
    if (failure.ok() || communicator->peers_->num_silent() > 0) failure = status;
  }
  if (failure.ok()) failure = GiveUp({GroupReport::Kind::kLate, ""});
  return GiveUpOthers(failure);
}

// The stream goes on only when nothing on it waits any more.
absl::Status NcclCommunicator::GiveUpOthers(const absl::Status& failure) {
  for (NcclCommunicator* communicator : stream_->communicators) {
    communicator->GiveUp({GroupReport::Kind::kError, std::string(failure.message())}).IgnoreError();
  }
  return failure;
}

// --- Operations ---

absl::Status NcclCommunicator::AllReduce(const Tensor& data, ReduceOp op) {
  if (data.device().is_cpu()) return host_->AllReduce(data, op);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("AllReduce", data, stream_->device));
  CAIRN_RETURN_IF_ERROR(CheckReducibleType("AllReduce", data));
  if (data.num_elements() == 0) return failure_;
  const ncclDataType_t type = data.dtype() == DType::kFloat32 ? ncclFloat32 : ncclInt64;
  return Issue("AllReduce", kNoPeer, *lanes_[0], [&] {
    return library_->AllReduce(data.raw(), data.raw(), static_cast<size_t>(data.num_elements()), type, ToNccl(op),
                               lanes_[0]->comm(), stream_->stream);
  });
}

absl::Status NcclCommunicator::AllGather(const Tensor& in, const Tensor& out) {
  if (in.device().is_cpu() && out.device().is_cpu()) return host_->AllGather(in, out);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("AllGather", in, stream_->device));
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("AllGather", out, stream_->device));
  CAIRN_RETURN_IF_ERROR(CheckGatheredShape("AllGather", in, out, size()));
  if (in.num_elements() == 0) return failure_;
  return Issue("AllGather", kNoPeer, *lanes_[0], [&] {
    return library_->AllGather(in.raw(), out.raw(), in.size_bytes(), ncclInt8, lanes_[0]->comm(), stream_->stream);
  });
}

absl::Status NcclCommunicator::Gather(const Tensor& in, const Tensor& out, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Gather", root, size()));
  if (in.device().is_cpu()) return host_->Gather(in, out, root);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Gather", in, stream_->device));
  if (rank() == root) {
    CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Gather", out, stream_->device));
    CAIRN_RETURN_IF_ERROR(CheckGatheredShape("Gather", in, out, size()));
  }
  const size_t bytes = in.size_bytes();
  if (bytes == 0) return failure_;
  const ncclComm_t comm = lanes_[0]->comm();
  if (rank() != root) {
    return Issue("Gather to", root, *lanes_[0],
                 [&] { return library_->Send(in.raw(), bytes, ncclInt8, root, comm, stream_->stream); });
  }
  uint8_t* parts = static_cast<uint8_t*>(out.raw());
  if (parts + rank() * bytes != in.raw()) {
    CAIRN_CUDA_CHECK(
        cudaMemcpyAsync(parts + rank() * bytes, in.raw(), bytes, cudaMemcpyDeviceToDevice, stream_->stream));
  }
  if (size() == 1) return failure_;
  return Issue("Gather", kNoPeer, *lanes_[0], [&] {
    ncclResult_t result = library_->GroupStart();
    for (int peer = 0; peer < size() && result == ncclSuccess; ++peer) {
      if (peer == rank()) continue;
      result = library_->Recv(parts + peer * bytes, bytes, ncclInt8, peer, comm, stream_->stream);
      if (result == ncclInProgress) result = ncclSuccess;  // the group's end will say
    }
    const ncclResult_t ended = library_->GroupEnd();
    return result == ncclSuccess ? ended : result;
  });
}

absl::Status NcclCommunicator::Broadcast(const Tensor& data, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Broadcast", root, size()));
  if (data.device().is_cpu()) return host_->Broadcast(data, root);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Broadcast", data, stream_->device));
  if (data.num_elements() == 0) return failure_;
  return Issue("Broadcast", kNoPeer, *lanes_[0], [&] {
    return library_->Broadcast(data.raw(), data.raw(), data.size_bytes(), ncclInt8, root, lanes_[0]->comm(),
                               stream_->stream);
  });
}

absl::Status NcclCommunicator::ReserveMessages(int count, size_t bytes) { return copies_.Reserve(count, bytes); }

// Out of a copy, on a stream of its own: this one goes on whenever the receiver asks. In a graph, whose streams must
// meet again at its end, in its place.
absl::Status NcclCommunicator::Send(const Tensor& data, int destination) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Send", destination, size()));
  if (data.device().is_cpu()) return host_->Send(data, destination);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Send", data, stream_->device));
  if (!failure_.ok() || data.num_elements() == 0) return failure_;
  NcclLane& lane = LaneOfMessages(rank());
  if (destination != rank() && IsCapturing()) {
    return Issue("Send to", destination, lane, [&] {
      return library_->Send(data.raw(), data.size_bytes(), ncclInt8, destination, lane.comm(), stream_->stream);
    });
  }
  CAIRN_ASSIGN_OR_RETURN(NcclMessages::Copy* const copy, copies_.Fill(data));
  if (destination == rank()) {
    copy->is_kept = true;
    to_self_.push_back(copy);
    return absl::OkStatus();
  }
  CAIRN_CUDA_CHECK(cudaEventRecord(copy->filled, stream_->stream));
  CAIRN_CUDA_CHECK(cudaStreamWaitEvent(send_stream_, copy->filled, 0));
  const absl::Status sent = Issue("Send to", destination, lane, [&] {
    return library_->Send(copy->memory.data(), copy->bytes, ncclInt8, destination, lane.comm(), send_stream_);
  });
  CAIRN_CUDA_CHECK(cudaEventRecord(copy->left, send_stream_));
  return sent;
}

absl::Status NcclCommunicator::Recv(const Tensor& data, int source) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Recv", source, size()));
  if (data.device().is_cpu()) return host_->Recv(data, source);
  CAIRN_RETURN_IF_ERROR(CheckDeviceTensor("Recv", data, stream_->device));
  if (!failure_.ok() || data.num_elements() == 0) return failure_;
  if (source == rank()) return RecvFromSelf(data);
  NcclLane& lane = LaneOfMessages(source);
  return Issue("Recv from", source, lane, [&] {
    return library_->Recv(data.raw(), data.size_bytes(), ncclInt8, source, lane.comm(), stream_->stream);
  });
}

absl::Status NcclCommunicator::RecvFromSelf(const Tensor& data) {
  if (to_self_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("Recv on ", peers_->Name(rank()), " from itself: nothing was sent"));
  }
  NcclMessages::Copy* const copy = to_self_.front();
  to_self_.pop_front();
  copy->is_kept = false;
  if (copy->bytes != data.size_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("Recv on ", peers_->Name(rank()), " from itself: expected ",
                                                   data.size_bytes(), " bytes, got ", copy->bytes));
  }
  CAIRN_CUDA_CHECK(
      cudaMemcpyAsync(data.raw(), copy->memory.data(), copy->bytes, cudaMemcpyDeviceToDevice, stream_->stream));
  CAIRN_CUDA_CHECK(cudaEventRecord(copy->left, stream_->stream));
  return absl::OkStatus();
}

absl::StatusOr<void*> NcclCommunicator::AllocateForReduce(size_t bytes) {
  if (!library_->HasWindows() || bytes == 0) return nullptr;
  if (!failure_.ok()) return failure_;
  if (num_pending_++ == 0) first_pending_ = "a window's registration";
  const absl::StatusOr<void*> memory = lanes_[0]->RegisterWindow(bytes);
  if (!memory.ok()) return GiveUp({GroupReport::Kind::kError, std::string(memory.status().message())});
  CAIRN_RETURN_IF_ERROR(Settle(*lanes_[0]));
  return *memory;
}

}  // namespace cairn
