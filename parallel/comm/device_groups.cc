#include "parallel/comm/device_groups.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/staged_communicator.h"
#if CAIRN_NCCL
#include "parallel/comm/nccl_communicator.h"
#endif

namespace cairn {
namespace {

constexpr int kSharingVersion = 23003;  // NCCL 2.30.3

std::string VersionName(int code) { return absl::StrCat(code / 10000, ".", code / 100 % 100, ".", code % 100); }

// Two ranks of one replica on one GPU, if there are any.
const RankGpu* FindSharing(const std::vector<RankGpu>& ranks, const ParallelSizes& sizes, int& first, int& second) {
  for (second = 0; second < static_cast<int>(ranks.size()); ++second) {
    for (first = 0; first < second; ++first) {
      const bool one_replica = CoordinatesOf(first, sizes).dp == CoordinatesOf(second, sizes).dp;
      if (one_replica && ranks[first].host == ranks[second].host && ranks[first].gpu == ranks[second].gpu) {
        return &ranks[first];
      }
    }
  }
  return nullptr;
}

// Why NCCL cannot be, with what to do about it; empty where it can.
std::string AgainstNccl(const std::vector<RankGpu>& ranks, const ParallelSizes& sizes) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const RankGpu& it = ranks[rank];
    if (it.nccl_version == 0) return absl::StrCat("rank ", rank, " (host ", it.host, "): ", it.nccl_error);
    if (it.nccl_version != ranks[0].nccl_version) {
      return absl::StrCat("rank 0 (host ", ranks[0].host, ") has NCCL ", VersionName(ranks[0].nccl_version), ", rank ",
                          rank, " (host ", it.host, ") ", VersionName(it.nccl_version),
                          ": put the same library on every host");
    }
  }
  int first = 0, second = 0;
  const RankGpu* shared = FindSharing(ranks, sizes, first, second);
  if (shared == nullptr) return "";
  if (std::all_of(ranks.begin(), ranks.end(), [](const RankGpu& rank) { return rank.MayShareGpu(); })) return "";
  return absl::StrCat("ranks ", first, " and ", second, " share a GPU of host ", shared->host, ", which NCCL ",
                      VersionName(shared->nccl_version), " refuses: start one rank for each GPU, or use --comm=mpi",
                      shared->nccl_version >= kSharingVersion
                          ? ", or allow it with NCCL_MULTI_RANK_GPU_ENABLE=1 on every rank"
                          : " (NCCL allows it from 2.30.3 on, with NCCL_MULTI_RANK_GPU_ENABLE=1)");
}

std::string Encode(const RankGpu& it) {
  return absl::StrCat(it.nccl_version, "\n", it.may_share ? 1 : 0, "\n", it.host, "\n", it.gpu, "\n", it.nccl_error);
}

RankGpu Decode(const std::string& text) {
  const std::vector<std::string> fields = absl::StrSplit(text, absl::MaxSplits('\n', 4));
  RankGpu it;
  if (fields.size() != 5 || !absl::SimpleAtoi(fields[0], &it.nccl_version)) return it;
  it.may_share = fields[1] == "1";
  it.host = fields[2];
  it.gpu = fields[3];
  it.nccl_error = fields[4];
  return it;
}

#if CAIRN_NCCL

absl::StatusOr<int> LoadedVersion() {
  CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
  return library->Version();
}

absl::Status ConnectNccl(ProcessGroups& groups, Context& context, double timeout_seconds) {
  CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
  const auto stream = std::make_shared<NcclStream>(context, timeout_seconds);
  const auto connect = [&](std::unique_ptr<Communicator>& group, NcclUse use, int color, int key) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ControlChannel> control, groups.replica->Split(color, key));
    if (group->size() == 1) {  // nothing travels
      group = std::make_unique<StagedCommunicator>(&context, std::move(group));
      return absl::OkStatus();
    }
    CAIRN_ASSIGN_OR_RETURN(group, NcclCommunicator::Create(library, stream, use, std::move(control), std::move(group)));
    return absl::OkStatus();
  };
  const RankCoordinates& at = groups.at;
  const absl::Status tp = connect(groups.tp, NcclUse::kTensorParallel, at.pp, at.tp);
  CAIRN_RETURN_IF_ERROR(AgreeOnStatus(*groups.world, tp));
  return AgreeOnStatus(*groups.world, connect(groups.pp, NcclUse::kPipeline, at.tp, at.pp));
}

#else

absl::StatusOr<int> LoadedVersion() {
  return absl::FailedPreconditionError("this build has no NCCL: build it where nvcc and nccl.h are found");
}

absl::Status ConnectNccl(ProcessGroups&, Context&, double) { return LoadedVersion().status(); }

#endif

}  // namespace

absl::StatusOr<std::vector<int>> AssignGpus(const std::vector<std::vector<std::string>>& visible) {
  const int num_ranks = static_cast<int>(visible.size());
  std::map<std::string, int> rank_of;  // of a GPU
  std::vector<int> chosen(num_ranks, -1);
  const auto take = [&](int rank, size_t i) {
    rank_of[visible[rank][i]] = rank;
    chosen[rank] = static_cast<int>(i);
    return true;
  };
  // The first that is free; where none is, augmenting paths: those who have what this rank sees look for another one.
  std::function<bool(int, std::vector<std::string>&)> find = [&](int rank, std::vector<std::string>& seen) {
    const std::vector<std::string>& gpus = visible[rank];
    for (size_t i = 0; i < gpus.size(); ++i) {
      if (rank_of.find(gpus[i]) == rank_of.end()) return take(rank, i);
    }
    for (size_t i = 0; i < gpus.size(); ++i) {
      if (std::find(seen.begin(), seen.end(), gpus[i]) != seen.end()) continue;
      seen.push_back(gpus[i]);
      if (find(rank_of[gpus[i]], seen)) return take(rank, i);
    }
    return false;
  };
  std::map<std::string, int> users;
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (visible[rank].empty()) {
      return absl::UnavailableError(absl::StrCat(
          "local rank ", rank, " sees no GPU: check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES"));
    }
    std::vector<std::string> seen;
    find(rank, seen);
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (chosen[rank] >= 0) ++users[visible[rank][chosen[rank]]];
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (chosen[rank] >= 0) continue;
    const auto least = std::min_element(visible[rank].begin(), visible[rank].end(),
                                        [&](const auto& a, const auto& b) { return users[a] < users[b]; });
    chosen[rank] = static_cast<int>(least - visible[rank].begin());
    ++users[*least];
  }
  return chosen;
}

absl::StatusOr<int> ChooseGpu(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      world.AllGather(absl::StrCat(world.host(), "\n", absl::StrJoin(Context::CudaDeviceIds(), " "))));
  std::vector<std::vector<std::string>> visible;  // of this host's ranks
  int mine = 0;
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::vector<std::string> lines = absl::StrSplit(all[rank], '\n');
    if (lines[0] != world.host()) continue;
    if (rank == world.rank()) mine = static_cast<int>(visible.size());
    visible.push_back(absl::StrSplit(lines[1], ' ', absl::SkipEmpty()));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int> chosen, AssignGpus(visible));
  return chosen[mine];
}

bool RankGpu::MayShareGpu() const { return may_share && nccl_version >= kSharingVersion; }

absl::StatusOr<DeviceComm> ParseDeviceComm(const std::string& name) {
  if (name == "auto") return DeviceComm::kAuto;
  if (name == "mpi") return DeviceComm::kMpi;
  if (name == "nccl") return DeviceComm::kNccl;
  return absl::InvalidArgumentError(absl::StrCat("--comm=", name, ": allowed is auto, mpi or nccl"));
}

RankGpu DescribeRankGpu(ControlChannel& world, const Context& context, DeviceComm wanted) {
  RankGpu it;
  const char* host = std::getenv("NCCL_HOSTID");
  it.host = host != nullptr ? host : world.host();
  it.gpu = context.device_id();
  const char* share = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  it.may_share = share != nullptr && std::string(share) == "1";
  if (wanted == DeviceComm::kMpi) return it;
  if (const absl::StatusOr<int> version = LoadedVersion(); version.ok()) {
    it.nccl_version = *version;
  } else {
    it.nccl_error = std::string(version.status().message());
  }
  return it;
}

absl::StatusOr<CommChoice> ChooseComm(const std::vector<RankGpu>& ranks, const ParallelSizes& sizes,
                                      DeviceComm wanted) {
  if (wanted == DeviceComm::kMpi) return CommChoice{DeviceComm::kMpi, "MPI through host memory"};
  const std::string against = AgainstNccl(ranks, sizes);
  if (against.empty()) {
    return CommChoice{DeviceComm::kNccl, absl::StrCat("NCCL ", VersionName(ranks[0].nccl_version))};
  }
  if (wanted == DeviceComm::kNccl) return absl::FailedPreconditionError(absl::StrCat("--comm=nccl: ", against));
  return CommChoice{DeviceComm::kMpi, absl::StrCat("MPI through host memory, not NCCL: ", against)};
}

absl::StatusOr<CommChoice> ConnectGpus(ProcessGroups& groups, Context& context, DeviceComm wanted,
                                       double timeout_seconds) {
  // A rank alone sends nothing: it need not load the library.
  const bool alone = groups.sizes.tp * groups.sizes.pp == 1 && wanted == DeviceComm::kAuto;
  if (alone) wanted = DeviceComm::kMpi;
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                         groups.world->AllGather(Encode(DescribeRankGpu(*groups.world, context, wanted))));
  std::vector<RankGpu> ranks;
  for (const std::string& text : all) ranks.push_back(Decode(text));
  CAIRN_ASSIGN_OR_RETURN(CommChoice choice, ChooseComm(ranks, groups.sizes, wanted));
  if (choice.comm == DeviceComm::kNccl) {
    CAIRN_RETURN_IF_ERROR(ConnectNccl(groups, context, timeout_seconds));
    return choice;
  }
  for (std::unique_ptr<Communicator>* group : {&groups.tp, &groups.pp}) {
    *group = std::make_unique<StagedCommunicator>(&context, std::move(*group));
  }
  if (alone) choice.text = "none: one rank holds the whole model";
  return choice;
}

}  // namespace cairn
