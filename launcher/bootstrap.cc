#include "launcher/bootstrap.h"

#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "launcher/exit_codes.h"
#include "parallel/comm/mpi_channel.h"
#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

// The first of the variables that is set to a number, or `otherwise`.
int FromEnvironment(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    int value = 0;
    if (text != nullptr && absl::SimpleAtoi(text, &value)) return value;
  }
  return otherwise;
}

}  // namespace

LaunchEnvironment DetectLaunch() {
  LaunchEnvironment environment;
  const int rank = FromEnvironment({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}, -1);
  environment.has_mpi = rank >= 0;
  environment.rank = std::max(rank, 0);
  environment.size = FromEnvironment({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}, 1);
  const int slurm_tasks = FromEnvironment({"SLURM_STEP_NUM_TASKS"}, 1);
  if (!environment.has_mpi && slurm_tasks > 1) {
    environment.srun_without_pmi = true;
    environment.rank = FromEnvironment({"SLURM_PROCID"}, 0);
    environment.size = slurm_tasks;
  }
  return environment;
}

absl::StatusOr<std::unique_ptr<World>> World::Start(const LaunchEnvironment& environment, double timeout_seconds) {
  if (environment.srun_without_pmi) {
    return UsageError(absl::StrCat("srun started ", environment.size,
                                   " tasks without telling them of each other: use srun --mpi=pmix"));
  }
  std::unique_ptr<World> world(new World);
  if (!environment.has_mpi) {
    world->channel_ = MakeSingleRankWorld();
    return world;
  }
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  world->has_mpi_ = true;
  absl::StatusOr<std::unique_ptr<ControlChannel>> channel = MakeMpiWorld(timeout_seconds);
  if (!channel.ok()) return channel.status();
  world->channel_ = *std::move(channel);
  return world;
}

World::~World() {
  channel_.reset();
  if (has_mpi_) MPI_Finalize();
}

absl::Status World::Agree(const absl::Status& mine) {
  const absl::Status agreed = AgreeOnStatus(*channel_, mine);
  if (agreed.ok() || channel_->size() == 1) return agreed;
  // The exit code does not travel with a status.
  const absl::StatusOr<std::vector<std::string>> codes = channel_->AllGather(absl::StrCat(ExitCodeOf(mine)));
  if (!codes.ok()) return codes.status();
  for (const std::string& text : *codes) {
    int code = 0;
    if (absl::SimpleAtoi(text, &code) && code != 0) return WithExitCode(agreed, static_cast<ExitCode>(code));
  }
  return agreed;
}

void World::AbortAll(const absl::Status& status) {
  const int code = ExitCodeOf(status);
  if (has_mpi_) {
    channel_->Abort(code, std::string(status.message()));
  } else {
    PrintError(status);
  }
  std::_Exit(code);
}

absl::Status CheckWorldSize(World& world, const ParallelSizes& sizes, const std::string& subcommand) {
  const int64_t wanted = static_cast<int64_t>(sizes.tp) * sizes.pp * sizes.dp;
  if (world.has_mpi() || wanted == 1) return absl::OkStatus();  // MakeProcessGroups compares a world of MPI
  return UsageError(absl::StrCat(
      "tensor-parallel-size ", sizes.tp, " x pipeline-parallel-size ", sizes.pp, " x data-parallel-size ", sizes.dp,
      " = ", wanted, " ranks, but this process was started alone: mpirun -np ", wanted, " cairn ", subcommand, " ..."));
}

std::string MpiLibraryVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, length);
  return version.substr(0, version.find(", package"));
}

}  // namespace cairn
