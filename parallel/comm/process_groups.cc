#include "parallel/comm/process_groups.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

absl::Status CheckSizes(int world_size, const ParallelSizes& sizes) {
  if (sizes.tp < 1 || sizes.pp < 1 || sizes.dp < 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size ", sizes.tp, ", pipeline-parallel-size ",
                                                   sizes.pp, ", data-parallel-size ", sizes.dp,
                                                   ": each must be at least 1"));
  }
  // In 64 bits: a mistyped size must not wrap into one that fits. Two factors cannot overflow, and a product of two
  // that is already larger than any world needs no third.
  const int64_t ranks_per_replica = static_cast<int64_t>(sizes.tp) * sizes.pp;
  if (ranks_per_replica <= world_size && ranks_per_replica * sizes.dp == world_size) return absl::OkStatus();
  std::string product = absl::StrCat("tensor-parallel-size ", sizes.tp, " x pipeline-parallel-size ", sizes.pp,
                                     " x data-parallel-size ", sizes.dp);
  std::string launch = "choose sizes";
  if (ranks_per_replica <= INT32_MAX) {
    const int64_t wanted = ranks_per_replica * sizes.dp;
    absl::StrAppend(&product, " = ", wanted);
    launch = absl::StrCat("start it with mpirun -np ", wanted, ", or choose sizes");
  }
  return absl::InvalidArgumentError(absl::StrCat("world size ", world_size, " does not match ", product, ": ", launch,
                                                 " whose product is ", world_size));
}

}  // namespace

RankCoordinates CoordinatesOf(int world_rank, const ParallelSizes& sizes) {
  CAIRN_CHECK(0 <= world_rank && world_rank < sizes.world(), "rank ", world_rank, " of ", sizes.world());
  return {
      .tp = world_rank % sizes.tp, .pp = world_rank / sizes.tp % sizes.pp, .dp = world_rank / (sizes.tp * sizes.pp)};
}

int WorldRankOf(const RankCoordinates& at, const ParallelSizes& sizes) {
  return (at.dp * sizes.pp + at.pp) * sizes.tp + at.tp;
}

absl::StatusOr<ProcessGroups> MakeProcessGroups(ControlChannel* world, const ParallelSizes& sizes) {
  CAIRN_RETURN_IF_ERROR(CheckSizes(world->size(), sizes));
  ProcessGroups groups;
  groups.sizes = sizes;
  groups.at = CoordinatesOf(world->rank(), sizes);
  groups.world = world;
  const RankCoordinates& at = groups.at;
  CAIRN_ASSIGN_OR_RETURN(groups.replica, world->Split(at.dp, at.pp * sizes.tp + at.tp));
  CAIRN_ASSIGN_OR_RETURN(groups.tp, world->SplitCommunicator(at.dp * sizes.pp + at.pp, at.tp));
  CAIRN_ASSIGN_OR_RETURN(groups.pp, world->SplitCommunicator(at.dp * sizes.tp + at.tp, at.pp));
  return groups;
}

}  // namespace cairn
