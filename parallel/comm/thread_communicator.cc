#include "parallel/comm/thread_communicator.h"

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/reduce.h"
#include "parallel/comm/tensor_checks.h"

namespace cairn {
namespace {

constexpr int kTensorTag = 0;
constexpr int kCollectiveTag = 1;

ThreadGroup::Payload CopyOf(const Tensor& data) {
  return std::make_shared<const std::string>(static_cast<const char*>(data.raw()), data.size_bytes());
}

void CopyInto(const std::string& bytes, void* out) {
  if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
}

}  // namespace

absl::Status ThreadCommunicator::PostToOthers(const ThreadGroup::Payload& bytes) {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank_) CAIRN_RETURN_IF_ERROR(group_->Post(rank_, peer, kCollectiveTag, bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<ThreadGroup::Payload> ThreadCommunicator::TakeExactly(const char* operation, int source, int tag,
                                                                     size_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(ThreadGroup::Letter letter,
                         group_->Take(operation, source, rank_, tag, group_->world().timeout_seconds));
  if (letter.bytes->size() != bytes) {
    return absl::InvalidArgumentError(absl::StrCat(operation, " on rank ", rank_, " of ", size(), ": expected ", bytes,
                                                   " bytes from rank ", source, ", which sent ", letter.bytes->size()));
  }
  return std::move(letter.bytes);
}

absl::Status ThreadCommunicator::AllReduce(const Tensor& data, ReduceOp op) {
  CAIRN_RETURN_IF_ERROR(CheckReducible("AllReduce", data));
  const ThreadGroup::Payload mine = CopyOf(data);
  CAIRN_RETURN_IF_ERROR(PostToOthers(mine));
  std::vector<ThreadGroup::Payload> payloads(size());  // keeps the sources alive
  std::vector<const void*> sources(size());
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_) {
      payloads[peer] = mine;
    } else {
      CAIRN_ASSIGN_OR_RETURN(payloads[peer], TakeExactly("AllReduce", peer, kCollectiveTag, data.size_bytes()));
    }
    sources[peer] = payloads[peer]->data();
  }
  ReduceInRankOrder(sources, data.num_elements(), data.dtype(), op, data.raw());
  return absl::OkStatus();
}

absl::Status ThreadCommunicator::AllGather(const Tensor& in, const Tensor& out) {
  CAIRN_RETURN_IF_ERROR(CheckGathered("AllGather", in, out, size()));
  const ThreadGroup::Payload mine = CopyOf(in);
  CAIRN_RETURN_IF_ERROR(PostToOthers(mine));
  for (int peer = 0; peer < size(); ++peer) {
    ThreadGroup::Payload part = mine;
    if (peer != rank_) {
      CAIRN_ASSIGN_OR_RETURN(part, TakeExactly("AllGather", peer, kCollectiveTag, in.size_bytes()));
    }
    CopyInto(*part, static_cast<char*>(out.raw()) + peer * in.size_bytes());
  }
  return absl::OkStatus();
}

absl::Status ThreadCommunicator::Gather(const Tensor& in, const Tensor& out, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Gather", root, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Gather", in));
  if (rank_ != root) return group_->Post(rank_, root, kCollectiveTag, CopyOf(in));
  CAIRN_RETURN_IF_ERROR(CheckGathered("Gather", in, out, size()));
  for (int peer = 0; peer < size(); ++peer) {
    ThreadGroup::Payload part;
    if (peer == rank_) {
      part = CopyOf(in);
    } else {
      CAIRN_ASSIGN_OR_RETURN(part, TakeExactly("Gather", peer, kCollectiveTag, in.size_bytes()));
    }
    CopyInto(*part, static_cast<char*>(out.raw()) + peer * in.size_bytes());
  }
  return absl::OkStatus();
}

absl::Status ThreadCommunicator::Broadcast(const Tensor& data, int root) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Broadcast", root, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Broadcast", data));
  if (rank_ == root) return PostToOthers(CopyOf(data));
  CAIRN_ASSIGN_OR_RETURN(const ThreadGroup::Payload bytes,
                         TakeExactly("Broadcast", root, kCollectiveTag, data.size_bytes()));
  CopyInto(*bytes, data.raw());
  return absl::OkStatus();
}

absl::Status ThreadCommunicator::Send(const Tensor& data, int destination) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Send", destination, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Send", data));
  return group_->Post(rank_, destination, kTensorTag, CopyOf(data));
}

absl::Status ThreadCommunicator::Recv(const Tensor& data, int source) {
  CAIRN_RETURN_IF_ERROR(CheckPeer("Recv", source, size()));
  CAIRN_RETURN_IF_ERROR(CheckHostTensor("Recv", data));
  CAIRN_ASSIGN_OR_RETURN(const ThreadGroup::Payload bytes, TakeExactly("Recv", source, kTensorTag, data.size_bytes()));
  CopyInto(*bytes, data.raw());
  return absl::OkStatus();
}

}  // namespace cairn
