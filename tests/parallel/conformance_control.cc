#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/process_groups.h"
#include "tests/parallel/conformance.h"

namespace cairn {
namespace {

absl::string_view MessageOf(const absl::Status& status) { return status.message(); }

// Recognisable bytes of any length.
std::string Pattern(int seed, size_t length) {
  std::string bytes(length, '\0');
  uint32_t state = static_cast<uint32_t>(seed) * 2654435761u + 12345u;
  for (char& c : bytes) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

absl::Status Identity(ControlChannel& world) {
  CAIRN_EXPECT(0 <= world.rank() && world.rank() < world.size());
  CAIRN_EXPECT(0 <= world.local_rank() && world.local_rank() < world.local_size());
  CAIRN_EXPECT(world.local_size() <= world.size());
  CAIRN_EXPECT(!world.host().empty());
  CAIRN_ASSIGN_OR_RETURN(const auto all,
                         world.AllGather(absl::StrCat(world.rank(), " ", world.host(), " ", world.local_rank())));
  int same_host = 0;
  for (int rank = 0; rank < world.size(); ++rank) {
    CAIRN_EXPECT(absl::StartsWith(all[rank], absl::StrCat(rank, " ")), all[rank]);
    same_host += absl::StrContains(all[rank], absl::StrCat(" ", world.host(), " "));
  }
  CAIRN_EXPECT(same_host == world.local_size(), same_host, " ranks name this host");
  return absl::OkStatus();
}

// Order holds per pair and tag, whatever order the tags are received in; sends do not wait for receivers.
absl::Status OrderPerPairAndTag(ControlChannel& world) {
  constexpr int kMessages = 40;
  for (int i = 0; i < kMessages; ++i) {
    for (int tag : {5, 0}) {
      for (int peer = 0; peer < world.size(); ++peer) {
        CAIRN_RETURN_IF_ERROR(world.Send(peer, tag, absl::StrCat(world.rank(), ":", tag, ":", i)));
      }
    }
  }
  for (int tag : {0, 5}) {
    for (int peer = world.size() - 1; peer >= 0; --peer) {
      for (int i = 0; i < kMessages; ++i) {
        CAIRN_ASSIGN_OR_RETURN(const ControlMessage message, world.Recv(peer, tag, 60));
        CAIRN_EXPECT(message.source == peer, message.source);
        CAIRN_EXPECT(message.bytes == absl::StrCat(peer, ":", tag, ":", i), message.bytes);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AnyLength(ControlChannel& world) {
  const int next = (world.rank() + 1) % world.size(), previous = (world.rank() + world.size() - 1) % world.size();
  const size_t lengths[] = {0, 1, 63, 4096, 65537, (1 << 20) + 3, 7, 0};
  int salt = 0;
  for (size_t length : lengths) CAIRN_RETURN_IF_ERROR(world.Send(next, 2, Pattern(world.rank() + salt++, length)));
  salt = 0;
  for (size_t length : lengths) {
    CAIRN_ASSIGN_OR_RETURN(const ControlMessage message, world.Recv(previous, 2, 60));
    CAIRN_EXPECT(message.bytes.size() == length, message.bytes.size());
    CAIRN_EXPECT(message.bytes == Pattern(previous + salt++, length), "the bytes differ");
  }
  return absl::OkStatus();
}

// Rank 0 answers whoever asks, as the scheduling rank of a data-parallel world does; every rank asks many times.
absl::Status AnySource(ControlChannel& world) {
  constexpr int kQuestions = 50;
  if (world.rank() != 0) {
    for (int i = 0; i < kQuestions; ++i) {
      CAIRN_RETURN_IF_ERROR(world.Send(0, 1, absl::StrCat(i)));
      CAIRN_ASSIGN_OR_RETURN(const ControlMessage answer, world.Recv(0, 3, 60));
      CAIRN_EXPECT(answer.bytes == absl::StrCat("answer ", i), answer.bytes);
    }
    return absl::OkStatus();
  }
  std::vector<int> asked(world.size(), 0);
  for (int i = 0; i < kQuestions * (world.size() - 1); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const ControlMessage question, world.Recv(ControlChannel::kAnySource, 1, 60));
    CAIRN_EXPECT(question.bytes == absl::StrCat(asked[question.source]++), question.bytes);
    CAIRN_RETURN_IF_ERROR(world.Send(question.source, 3, absl::StrCat("answer ", question.bytes)));
  }
  return absl::OkStatus();
}

absl::Status TryRecvNeverWaits(ControlChannel& world) {
  const int next = (world.rank() + 1) % world.size(), previous = (world.rank() + world.size() - 1) % world.size();
  CAIRN_RETURN_IF_ERROR(world.Barrier());
  CAIRN_ASSIGN_OR_RETURN(auto nothing, world.TryRecv(ControlChannel::kAnySource, 9));
  CAIRN_EXPECT(!nothing.has_value(), nothing->bytes);
  CAIRN_RETURN_IF_ERROR(world.Barrier());
  CAIRN_RETURN_IF_ERROR(world.Send(next, 8, "other tag"));
  CAIRN_RETURN_IF_ERROR(world.Send(next, 9, "mine"));
  CAIRN_RETURN_IF_ERROR(world.Barrier());
  std::optional<ControlMessage> found;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!found.has_value()) {
    CAIRN_EXPECT(std::chrono::steady_clock::now() < give_up, "the message never came");
    CAIRN_ASSIGN_OR_RETURN(found, world.TryRecv(previous, 9));
  }
  CAIRN_EXPECT(found->bytes == "mine" && found->source == previous, found->bytes);
  CAIRN_ASSIGN_OR_RETURN(const ControlMessage other, world.Recv(previous, 8, 60));
  CAIRN_EXPECT(other.bytes == "other tag", other.bytes);
  return absl::OkStatus();
}

absl::Status BadArguments(ControlChannel& world) {
  CAIRN_EXPECT(absl::IsInvalidArgument(world.Send(world.size(), 0, "x")));
  CAIRN_EXPECT(absl::IsInvalidArgument(world.Send(-1, 0, "x")));
  CAIRN_EXPECT(absl::IsInvalidArgument(world.Send(0, -1, "x")));
  CAIRN_EXPECT(absl::IsInvalidArgument(world.Recv(world.size(), 0).status()));
  CAIRN_EXPECT(absl::IsInvalidArgument(world.Recv(0, -5).status()));
  CAIRN_EXPECT(absl::IsInvalidArgument(world.TryRecv(-2, 0).status()));
  const absl::Status late = world.Recv(0, 77, 0.02).status();
  CAIRN_EXPECT(absl::IsDeadlineExceeded(late), late.ToString());
  CAIRN_EXPECT(absl::StrContains(MessageOf(late), "Recv") && absl::StrContains(MessageOf(late), "rank 0"),
               late.ToString());
  return world.Barrier();
}

absl::Status Gathering(ControlChannel& world) {
  for (int round = 0; round < 30; ++round) {
    const auto length = [&](int rank) { return static_cast<size_t>((rank * 7919 + round * 104729) % 9000); };
    CAIRN_ASSIGN_OR_RETURN(const auto all, world.AllGather(Pattern(world.rank(), length(world.rank()))));
    CAIRN_EXPECT(static_cast<int>(all.size()) == world.size(), all.size());
    for (int rank = 0; rank < world.size(); ++rank) {
      CAIRN_EXPECT(all[rank] == Pattern(rank, length(rank)), "rank ", rank, " round ", round);
    }
    if (round % 3 == 0) CAIRN_RETURN_IF_ERROR(world.Barrier());
  }
  return absl::OkStatus();
}

// Nobody leaves a barrier before the last has come: times on one host share a clock.
absl::Status BarrierWaitsForAll(ControlChannel& world) {
  using Clock = std::chrono::steady_clock;
  const auto micros = [](Clock::time_point t) {
    return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
  };
  for (int late = 0; late < world.size(); ++late) {
    if (world.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const long long came = micros(Clock::now());
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    const long long left = micros(Clock::now());
    CAIRN_ASSIGN_OR_RETURN(const auto all, world.AllGather(absl::StrCat(came)));
    for (const std::string& other : all) {
      CAIRN_EXPECT(left >= std::stoll(other), "left at ", left, " before ", other);
    }
  }
  return absl::OkStatus();
}

absl::Status Splits(ControlChannel& world) {
  for (int round = 0; round < 20; ++round) {
    const int colors = 1 + round % 3;
    const int color = world.rank() % colors - 1;
    CAIRN_ASSIGN_OR_RETURN(auto group, world.Split(color, -world.rank()));
    CAIRN_ASSIGN_OR_RETURN(const auto members, group->AllGather(absl::StrCat(world.rank())));
    for (int i = 0; i + 1 < group->size(); ++i) {
      CAIRN_EXPECT(std::stoi(members[i]) > std::stoi(members[i + 1]), "keys order the ranks backwards");
    }
    CAIRN_EXPECT(members[group->rank()] == absl::StrCat(world.rank()), members[group->rank()]);
    for (const std::string& member : members) CAIRN_EXPECT(std::stoi(member) % colors - 1 == color, member);
    CAIRN_EXPECT(0 <= group->local_rank() && group->local_rank() < group->local_size());
    // A group of a group, and messages in all three at once.
    CAIRN_ASSIGN_OR_RETURN(auto inner, group->Split(group->rank() / 2, 0));
    CAIRN_EXPECT(inner->size() <= 2, inner->size());
    CAIRN_RETURN_IF_ERROR(inner->Send(inner->size() - 1, 0, absl::StrCat("inner ", round)));
    CAIRN_RETURN_IF_ERROR(group->Send(0, 0, "group"));
    CAIRN_RETURN_IF_ERROR(inner->Barrier());
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    if (inner->rank() == inner->size() - 1) {
      CAIRN_ASSIGN_OR_RETURN(const ControlMessage message, inner->Recv(0, 0, 60));
      CAIRN_EXPECT(message.bytes == absl::StrCat("inner ", round), message.bytes);
    }
    for (int i = 0; group->rank() == 0 && i < group->size(); ++i) {
      CAIRN_ASSIGN_OR_RETURN(const ControlMessage message, group->Recv(ControlChannel::kAnySource, 0, 60));
      CAIRN_EXPECT(message.bytes == "group", message.bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status Agreement(ControlChannel& world) {
  CAIRN_RETURN_IF_ERROR(AgreeOnStatus(world, absl::OkStatus()));
  const int first = world.size() / 2;
  const absl::Status mine =
      world.rank() >= first ? absl::NotFoundError(absl::StrCat("file of rank ", world.rank())) : absl::OkStatus();
  const absl::Status agreed = AgreeOnStatus(world, mine);
  CAIRN_EXPECT(absl::IsNotFound(agreed), agreed.ToString());
  CAIRN_EXPECT(absl::StrContains(MessageOf(agreed), absl::StrCat("file of rank ", first)), agreed.ToString());
  if (world.size() > 1) {
    CAIRN_EXPECT(absl::StartsWith(MessageOf(agreed), absl::StrCat("rank ", first, " on ")), agreed.ToString());
  }
  return AgreeOnStatus(world, absl::OkStatus());
}

absl::Status Groups(ControlChannel& world) {
  for (int tp = 1; tp <= world.size(); ++tp) {
    for (int pp = 1; tp * pp <= world.size(); ++pp) {
      if (world.size() % (tp * pp) != 0) continue;
      const ParallelSizes sizes = {.tp = tp, .pp = pp, .dp = world.size() / (tp * pp)};
      CAIRN_ASSIGN_OR_RETURN(const ProcessGroups groups, MakeProcessGroups(&world, sizes));
      CAIRN_EXPECT(WorldRankOf(groups.at, sizes) == world.rank());
      CAIRN_EXPECT(groups.tp->size() == tp && groups.tp->rank() == groups.at.tp);
      CAIRN_EXPECT(groups.pp->size() == pp && groups.pp->rank() == groups.at.pp);
      CAIRN_EXPECT(groups.replica->size() == tp * pp && groups.replica->rank() == groups.at.pp * tp + groups.at.tp);
      // The sum of world ranks in each group tells who is in it.
      float sums[2] = {static_cast<float>(world.rank()), static_cast<float>(world.rank())};
      CAIRN_RETURN_IF_ERROR(groups.tp->AllReduce(Tensor(&sums[0], DType::kFloat32, {1}), ReduceOp::kSum));
      CAIRN_RETURN_IF_ERROR(groups.pp->AllReduce(Tensor(&sums[1], DType::kFloat32, {1}), ReduceOp::kSum));
      float tp_sum = 0, pp_sum = 0;
      for (int i = 0; i < tp; ++i) tp_sum += WorldRankOf({.tp = i, .pp = groups.at.pp, .dp = groups.at.dp}, sizes);
      for (int i = 0; i < pp; ++i) pp_sum += WorldRankOf({.tp = groups.at.tp, .pp = i, .dp = groups.at.dp}, sizes);
      CAIRN_EXPECT(sums[0] == tp_sum && sums[1] == pp_sum, sums[0], " ", sums[1]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<ConformanceCheck> ControlChecks() {
  return {{"Identity", Identity},
          {"OrderPerPairAndTag", OrderPerPairAndTag},
          {"AnyLength", AnyLength},
          {"AnySource", AnySource},
          {"TryRecvNeverWaits", TryRecvNeverWaits},
          {"BadArguments", BadArguments},
          {"Gathering", Gathering},
          {"BarrierWaitsForAll", BarrierWaitsForAll},
          {"Splits", Splits},
          {"Agreement", Agreement},
          {"Groups", Groups}};
}

}  // namespace cairn
