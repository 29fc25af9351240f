#include "launcher/ranks.h"

#include <algorithm>
#include <utility>

#include "kernels/core/context.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/replica_link.h"
#include "launcher/exit_codes.h"
#include "launcher/progress.h"
#include "launcher/signals.h"
#include "launcher/topology.h"

namespace cairn {
namespace {

// A rank that is told to end gives its leader this long to end the job in order.
constexpr int kGraceSeconds = 3;
constexpr double kStatusInterval = 0.5;  // seconds

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> StartEngine(World& world, EngineOptions options, bool quiet) {
  options.show_progress = !quiet;
  const absl::Status environment = Context::CheckEnvironment();
  CAIRN_RETURN_IF_ERROR(world.Agree(WithExitCode(environment, kExitUsage)));
  absl::StatusOr<ProcessGroups> groups = MakeProcessGroups(&world.channel(), options.parallel);
  if (absl::IsInvalidArgument(groups.status())) return WithExitCode(groups.status(), kExitUsage);
  if (!groups.ok()) return groups.status();
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options, *std::move(groups)));
  if (!quiet && world.is_root())
    PrintToStderr(TopologyTable(engine->ranks()) + KvCacheLines(engine->kv_capacity(), engine->options()));
  return engine;
}

int FollowLeader(World& world, Engine& engine) {
  NoteStopSignals(kGraceSeconds);
  if (const absl::Status status = engine.Serve(); !status.ok()) world.AbortAll(status);
  return kExitOk;
}

std::vector<int> OtherLeaders(const ParallelSizes& sizes) {
  std::vector<int> leaders;
  for (int dp = 1; dp < sizes.dp; ++dp) leaders.push_back(WorldRankOf({.tp = 0, .pp = 0, .dp = dp}, sizes));
  return leaders;
}

int64_t ReplicaCapacity(const Engine& engine) {
  const int64_t batch = engine.options().max_num_seqs;
  return batch + std::max<int64_t>(2, batch / 4);
}

int LeadReplica(World& world, Engine& engine, ReplicaWorker& worker) {
  NoteStopSignals(kGraceSeconds);
  if (const absl::Status served = ServeItems(world.channel(), worker, kStatusInterval); !served.ok()) {
    world.AbortAll(served);
  }
  DismissFollowers(world, engine);
  return kExitOk;
}

void DismissFollowers(World& world, Engine& engine) {
  if (const absl::Status status = engine.Shutdown(); !status.ok()) world.AbortAll(status);
}

}  // namespace cairn
