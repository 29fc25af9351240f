#include "parallel/comm/message_channel.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/tensor_checks.h"

namespace cairn {
namespace {

// Every collective of a channel uses one tag: all ranks call them in one order, and messages of a pair keep theirs.
constexpr int kCollectiveTag = -1;

}  // namespace

absl::Status MessageChannel::CheckMessage(const char* operation, int peer, int tag) const {
  if (tag < 0) return absl::InvalidArgumentError(absl::StrCat(operation, ": tag ", tag, " is negative"));
  return CheckPeer(operation, peer, size());
}

absl::Status MessageChannel::Send(int destination, int tag, std::string bytes) {
  CAIRN_RETURN_IF_ERROR(CheckMessage("Send", destination, tag));
  return Post(destination, tag, std::move(bytes));
}

absl::StatusOr<ControlMessage> MessageChannel::Recv(int source, int tag, double timeout_seconds) {
  CAIRN_RETURN_IF_ERROR(CheckMessage("Recv", source == kAnySource ? 0 : source, tag));
  return Take("Recv", source, tag, timeout_seconds);
}

absl::StatusOr<std::optional<ControlMessage>> MessageChannel::TryRecv(int source, int tag) {
  CAIRN_RETURN_IF_ERROR(CheckMessage("TryRecv", source == kAnySource ? 0 : source, tag));
  return TryTake(source, tag);
}

absl::Status MessageChannel::Barrier() { return Exchange("Barrier", "").status(); }

absl::StatusOr<std::vector<std::string>> MessageChannel::AllGather(const std::string& bytes) {
  return Exchange("AllGather", bytes);
}

// Everybody to everybody, without a root: whoever waits too long can name the rank that has not come. Control groups
// are small and these calls rare.
absl::StatusOr<std::vector<std::string>> MessageChannel::Exchange(const char* operation, const std::string& bytes) {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) CAIRN_RETURN_IF_ERROR(Post(peer, kCollectiveTag, bytes));
  }
  std::vector<std::string> gathered(size());
  gathered[rank()] = bytes;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    CAIRN_ASSIGN_OR_RETURN(ControlMessage message, Take(operation, peer, kCollectiveTag, timeout_seconds_));
    gathered[peer] = std::move(message.bytes);
  }
  return gathered;
}

absl::StatusOr<std::vector<int>> MessageChannel::ExchangeColors(const char* operation, int color, int key) {
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange(operation, absl::StrCat(color, " ", key)));
  std::vector<std::pair<int, int>> members;  // key, parent rank
  for (int peer = 0; peer < size(); ++peer) {
    const std::vector<std::string> fields = absl::StrSplit(all[peer], ' ');
    int peer_color = 0, peer_key = 0;
    if (fields.size() != 2 || !absl::SimpleAtoi(fields[0], &peer_color) || !absl::SimpleAtoi(fields[1], &peer_key)) {
      return absl::InternalError(
          absl::StrCat(operation, ": rank ", peer, " is in another collective; all ranks must call the same ones"));
    }
    if (peer_color == color) members.emplace_back(peer_key, peer);
  }
  std::sort(members.begin(), members.end());
  std::vector<int> ranks;
  for (const auto& member : members) ranks.push_back(member.second);
  return ranks;
}

}  // namespace cairn
