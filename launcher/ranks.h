// What every subcommand with an engine does around it, on every rank.
#ifndef CAIRN_LAUNCHER_RANKS_H_
#define CAIRN_LAUNCHER_RANKS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "launcher/bootstrap.h"

namespace cairn {

// Collective: process groups and the engine; an error is every rank's. Unless `quiet`, rank 0 shows load progress and
// then who holds what.
absl::StatusOr<std::unique_ptr<Engine>> StartEngine(World& world, EngineOptions options, bool quiet);

// A rank that is not a leader: follows its leader to the end. Returns the exit code.
int FollowLeader(World& world, Engine& engine);

// A leader at its end: lets the followers go.
void DismissFollowers(World& world, Engine& engine);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_RANKS_H_
