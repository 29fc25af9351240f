// What each subcommand does, on every rank. Returns this rank's exit code. An error that comes back is one that every
// rank has (agreed on before anything depends on it): the caller lets rank 0 print it. An error of one rank alone ends
// the world.
#ifndef CAIRN_LAUNCHER_SUBCOMMANDS_H_
#define CAIRN_LAUNCHER_SUBCOMMANDS_H_

#include "absl/status/statusor.h"
#include "launcher/bootstrap.h"
#include "launcher/command_line.h"

namespace cairn {

absl::StatusOr<int> RunBatch(World& world, const Subcommand& self);
absl::StatusOr<int> Generate(World& world, const Subcommand& self);
absl::StatusOr<int> Inspect(World& world, const Subcommand& self);
absl::StatusOr<int> Eval(World& world, const Subcommand& self);
absl::StatusOr<int> PlanRun(World& world, const Subcommand& self);
absl::StatusOr<int> Doctor(World& world, const Subcommand& self);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_SUBCOMMANDS_H_
