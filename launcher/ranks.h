// What every subcommand with an engine does around it, on every rank.
#ifndef CAIRN_LAUNCHER_RANKS_H_
#define CAIRN_LAUNCHER_RANKS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "launcher/batch/replica_worker.h"
#include "launcher/bootstrap.h"

namespace cairn {

// Collective: process groups and the engine; an error is every rank's. Unless `quiet`, rank 0 shows load progress and
// then who holds what.
absl::StatusOr<std::unique_ptr<Engine>> StartEngine(World& world, EngineOptions options, bool quiet);

// A rank that is not a leader: follows its leader to the end. Returns the exit code.
int FollowLeader(World& world, Engine& engine);

// World ranks of the leaders of the replicas beside rank 0's own.
std::vector<int> OtherLeaders(const ParallelSizes& sizes);

// What a replica is given of a batch at once: what it runs, and a quarter of it waiting.
int64_t ReplicaCapacity(const Engine& engine);

// A leader beside rank 0: answers items until rank 0 says stop, then lets its followers go. Returns the exit code.
int LeadReplica(World& world, Engine& engine, ReplicaWorker& worker);

// A leader at its end: lets the followers go.
void DismissFollowers(World& world, Engine& engine);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_RANKS_H_
