// Who a rank is. World = tp x pp x dp; tp ranks are adjacent, then pp, then dp: rank = (dp * PP + pp) * TP + tp.
#ifndef CAIRN_PARALLEL_COMM_PROCESS_GROUPS_H_
#define CAIRN_PARALLEL_COMM_PROCESS_GROUPS_H_

#include <memory>

#include "parallel/comm/communicator.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

struct ParallelSizes {
  int tp = 1, pp = 1, dp = 1;
  int world() const { return tp * pp * dp; }
};

struct RankCoordinates {
  int tp = 0, pp = 0, dp = 0;
};

RankCoordinates CoordinatesOf(int world_rank, const ParallelSizes& sizes);
int WorldRankOf(const RankCoordinates& at, const ParallelSizes& sizes);

struct ProcessGroups {
  ParallelSizes sizes;
  RankCoordinates at;
  ControlChannel* world = nullptr;          // not owned
  std::unique_ptr<ControlChannel> replica;  // the tp x pp ranks of this replica, rank pp * TP + tp; rank 0 leads
  std::unique_ptr<Communicator> tp;         // ranks that share this stage's layers
  std::unique_ptr<Communicator> pp;         // the same tp index on every stage, ranked by stage

  bool is_leader() const { return at.tp == 0 && at.pp == 0; }
  bool is_first_stage() const { return at.pp == 0; }
  bool is_last_stage() const { return at.pp == sizes.pp - 1; }
};

// Collective over the world. INVALID_ARGUMENT when world->size() is not tp x pp x dp; the message names all four
// numbers and how to launch.
absl::StatusOr<ProcessGroups> MakeProcessGroups(ControlChannel* world, const ParallelSizes& sizes);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_PROCESS_GROUPS_H_
