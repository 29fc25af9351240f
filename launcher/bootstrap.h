// From processes to a world of ranks: MPI when mpirun or srun started them, one rank alone otherwise.
#ifndef CAIRN_LAUNCHER_BOOTSTRAP_H_
#define CAIRN_LAUNCHER_BOOTSTRAP_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/control_channel.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

// What the environment says about how this process was started, before MPI is initialised.
struct LaunchEnvironment {
  bool has_mpi = false;  // by mpirun, or by srun with a PMI
  int rank = 0;
  int size = 1;  // 1 also where the starter does not tell
  // srun without a PMI: every task would take itself for the only one.
  bool srun_without_pmi = false;
};
LaunchEnvironment DetectLaunch();

class World {
 public:
  // `timeout_seconds`: how long a collective waits for a peer.
  static absl::StatusOr<std::unique_ptr<World>> Start(const LaunchEnvironment& environment, double timeout_seconds);
  // Collective: every rank must come here, or call AbortAll.
  ~World();

  ControlChannel& channel() { return *channel_; }
  bool is_root() const { return channel_->rank() == 0; }
  bool has_mpi() const { return has_mpi_; }

  // Collective: the first error in rank order on every rank, with its exit code; OK where no rank has one.
  absl::Status Agree(const absl::Status& mine);

  // For an error that this rank alone knows of: reports it and ends every rank with its exit code.
  [[noreturn]] void AbortAll(const absl::Status& status);

 private:
  World() = default;

  bool has_mpi_ = false;
  std::unique_ptr<ControlChannel> channel_;
};

// OK, or exit code 64 where the ranks that run are not the ranks that the sizes need, with the line that would start
// them.
absl::Status CheckWorldSize(World& world, const ParallelSizes& sizes, const std::string& subcommand);

// "Open MPI v4.1.4, ..." of the library that is linked.
std::string MpiLibraryVersion();

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BOOTSTRAP_H_
