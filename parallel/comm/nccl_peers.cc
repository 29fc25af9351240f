#include "parallel/comm/nccl_peers.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr int kReportTag = 1;

std::string Encode(const GroupReport& report) {
  return absl::StrCat(std::string(1, static_cast<char>(report.kind)), report.text);
}

GroupReport Decode(const std::string& bytes) {
  if (bytes.empty()) return {};
  return {static_cast<GroupReport::Kind>(bytes[0]), bytes.substr(1)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<NcclPeers>> NcclPeers::Meet(std::unique_ptr<ControlChannel> control,
                                                           const std::string& device, const std::string& note) {
  std::unique_ptr<NcclPeers> peers(new NcclPeers(std::move(control)));
  ControlChannel& channel = *peers->control_;
  CAIRN_ASSIGN_OR_RETURN(peers->places_, channel.AllGather(absl::StrCat("host ", channel.host(), ", ", device)));
  CAIRN_ASSIGN_OR_RETURN(peers->notes_, channel.AllGather(note));
  return peers;
}

std::string NcclPeers::Name(int rank) const { return absl::StrCat("rank ", rank, " (", places_[rank], ")"); }

absl::StatusOr<std::optional<std::pair<int, GroupReport>>> NcclPeers::Poll() {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<ControlMessage> message,
                         control_->TryRecv(ControlChannel::kAnySource, kReportTag));
  std::optional<std::pair<int, GroupReport>> report;
  if (message.has_value()) report.emplace(message->source, Decode(message->bytes));
  return report;
}

absl::Status NcclPeers::GiveUp(const std::string& operation, const GroupReport& mine, double waited_seconds,
                               double listen_seconds, const std::optional<std::pair<int, GroupReport>>& heard) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::optional<GroupReport>> reports(size());
  reports[rank()] = mine;
  if (heard.has_value()) reports[heard->first] = heard->second;
  // A rank that cannot be told or heard is one that is missing below.
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) control_->Send(peer, kReportTag, Encode(mine)).IgnoreError();
  }
  const Clock::time_point begin = Clock::now();
  const auto silent = [](const std::optional<GroupReport>& report) { return !report.has_value(); };
  while (std::any_of(reports.begin(), reports.end(), silent)) {
    const double left = listen_seconds - std::chrono::duration<double>(Clock::now() - begin).count();
    if (left <= 0) break;
    const absl::StatusOr<ControlMessage> message = control_->Recv(ControlChannel::kAnySource, kReportTag, left);
    if (!message.ok()) break;
    reports[message->source] = Decode(message->bytes);
  }

  std::string missing;
  num_silent_ = 0;
  for (int peer = 0; peer < size(); ++peer) {
    if (reports[peer].has_value()) continue;
    absl::StrAppend(&missing, missing.empty() ? "" : ", ", Name(peer));
    ++num_silent_;
  }
  const std::string where = absl::StrCat(operation, " on rank ", rank(), " of ", size(), " (", places_[rank()], "): ");
  for (int peer = 0; peer < size(); ++peer) {
    if (!reports[peer].has_value() || reports[peer]->kind != GroupReport::Kind::kError) continue;
    if (peer == rank()) return absl::UnavailableError(absl::StrCat(where, mine.text));
    return absl::UnavailableError(absl::StrCat(where, Name(peer), " gave up: ", reports[peer]->text));
  }
  if (num_silent_ == 0) missing = "ranks that are in other operations, or behind a link that is stuck: all answer";
  return absl::DeadlineExceededError(absl::StrCat(where, "waited ", waited_seconds, " s for ", missing));
}

}  // namespace cairn
