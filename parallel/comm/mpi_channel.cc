#include "parallel/comm/mpi_channel.h"

#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/message_channel.h"
#include "parallel/comm/mpi_communicator.h"
#include "parallel/comm/mpi_group.h"
#include "parallel/comm/mpi_runtime.h"
#include "parallel/comm/waiter.h"

namespace cairn {
namespace {

class MpiChannel : public MessageChannel {
 public:
  // `group` is of GroupUse::kControl.
  explicit MpiChannel(std::unique_ptr<MpiGroup> group)
      : MessageChannel(group->runtime()->policy().timeout_seconds), group_(std::move(group)), arriving_(size()) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  int local_rank() const override { return group_->local_rank(); }
  int local_size() const override { return static_cast<int>(group_->local_ranks().size()); }
  std::string host() const override { return group_->runtime()->host(); }

  absl::StatusOr<std::unique_ptr<ControlChannel>> Split(int color, int key) override {
    CAIRN_ASSIGN_OR_RETURN(auto group, Join("Split", color, key, GroupUse::kControl));
    return std::make_unique<MpiChannel>(std::move(group));
  }

  absl::StatusOr<std::unique_ptr<Communicator>> SplitCommunicator(int color, int key) override {
    CAIRN_ASSIGN_OR_RETURN(auto group, Join("SplitCommunicator", color, key, GroupUse::kTensors));
    return std::make_unique<MpiCommunicator>(std::move(group));
  }

  void Abort(int exit_code, const std::string& message) override {
    std::string line = message;
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::fprintf(stderr, "cairn: rank %d (host %s): %s\n", group_->runtime()->world_rank(), host().c_str(),
                 line.c_str());
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  absl::Status Post(int destination, int tag, std::string bytes) override {
    group_->runtime()->Progress();
    return group_->Send(destination, tag, bytes.data(), bytes.size());
  }

  absl::StatusOr<ControlMessage> Take(const char* operation, int source, int tag, double timeout_seconds) override {
    const WaitPolicy policy = {.timeout_seconds = timeout_seconds, .crowded = group_->runtime()->policy().crowded};
    Waiter waiter(policy);
    for (;;) {
      CAIRN_ASSIGN_OR_RETURN(std::optional<ControlMessage> message, TryTake(source, tag));
      if (message.has_value()) return *std::move(message);
      if (waiter.Pause([this] { group_->runtime()->Progress(); })) continue;
      const std::string whom = source == kAnySource ? "any rank" : absl::StrCat("rank ", source);
      return group_->Late(operation, whom, timeout_seconds);
    }
  }

  absl::StatusOr<std::optional<ControlMessage>> TryTake(int source, int tag) override {
    std::optional<ControlMessage> message = Find(source, tag);
    if (message.has_value()) return message;
    group_->runtime()->Progress();
    CAIRN_RETURN_IF_ERROR(Drain());
    return Find(source, tag);
  }

  // Everything that has come into arrived_: what the caller does not ask for yet must not stand in the way of the rest.
  absl::Status Drain() {
    for (int source : group_->local_ranks()) {
      for (;;) {
        CAIRN_ASSIGN_OR_RETURN(const std::optional<MessagePiece> piece, group_->Poll(source));
        if (!piece.has_value()) break;
        Append(*piece);
        group_->Pop(source);
      }
    }
    for (;;) {
      CAIRN_ASSIGN_OR_RETURN(const std::optional<MessagePiece> piece, group_->PollOtherHosts());
      if (!piece.has_value()) return absl::OkStatus();
      Append(*piece);
    }
  }

  void Append(const MessagePiece& piece) {
    std::string& bytes = arriving_[piece.source];
    if (bytes.empty()) bytes.reserve(piece.message_bytes);
    bytes.append(reinterpret_cast<const char*>(piece.data), piece.bytes);
    if (bytes.size() < piece.message_bytes) return;
    arrived_[piece.tag].push_back({piece.source, std::move(bytes)});
    bytes.clear();
  }

  std::optional<ControlMessage> Find(int source, int tag) {
    const auto queue = arrived_.find(tag);
    if (queue == arrived_.end()) return std::nullopt;
    const auto message = std::find_if(queue->second.begin(), queue->second.end(), [&](const ControlMessage& m) {
      return source == kAnySource || m.source == source;
    });
    if (message == queue->second.end()) return std::nullopt;
    ControlMessage found = std::move(*message);
    queue->second.erase(message);
    return found;
  }

  absl::StatusOr<std::unique_ptr<MpiGroup>> Join(const char* operation, int color, int key, GroupUse use) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<int> ranks, ExchangeColors(operation, color, key));
    const int new_rank = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank()) - ranks.begin());
    // All have come, so that MPI's own calls, which know no deadline, do not wait. MPI wants colors that are not
    // negative: the first rank of each is one.
    const int mpi_color = *std::min_element(ranks.begin(), ranks.end());
    MPI_Comm comm = MPI_COMM_NULL;
    CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Comm_split(group_->comm(), mpi_color, new_rank, &comm), operation));
    return MpiGroup::Create(group_->runtime(), comm, use);
  }

  const std::unique_ptr<MpiGroup> group_;
  std::vector<std::string> arriving_;                  // by source: a message of which pieces are missing
  std::map<int, std::deque<ControlMessage>> arrived_;  // by tag, in order of arrival
};

}  // namespace

absl::StatusOr<std::unique_ptr<ControlChannel>> MakeMpiWorld(double timeout_seconds) {
  CAIRN_ASSIGN_OR_RETURN(auto runtime, MpiRuntime::Create(timeout_seconds));
  MPI_Comm comm = MPI_COMM_NULL;
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup"));
  CAIRN_ASSIGN_OR_RETURN(auto group, MpiGroup::Create(std::move(runtime), comm, GroupUse::kControl));
  return std::make_unique<MpiChannel>(std::move(group));
}

}  // namespace cairn
