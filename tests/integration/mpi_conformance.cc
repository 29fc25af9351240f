// The conformance checks in a world of MPI ranks: started by mpirun, one line per check from rank 0, non-zero exit when
// any rank failed one. With the argument "timeouts", the checks of waits that end with an error instead.
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "parallel/comm/mpi_channel.h"
#include "tests/parallel/conformance.h"

namespace cairn {
namespace {

// Every rank's result of one check; prints the failures.
bool Report(ControlChannel& world, const char* name, const absl::Status& mine, double seconds) {
  const absl::Status agreed = AgreeOnStatus(world, mine);
  if (!mine.ok()) std::printf("rank %d: %s\n", world.rank(), mine.ToString().c_str());
  if (world.rank() == 0) std::printf("%-28s %s %.2f s\n", name, agreed.ok() ? "ok    " : "FAILED", seconds);
  std::fflush(stdout);
  return agreed.ok();
}

// False after the first failure: the ranks may be out of step then.
bool RunChecks(ControlChannel& world, const std::vector<ConformanceCheck>& checks) {
  for (const ConformanceCheck& check : checks) {
    const auto start = std::chrono::steady_clock::now();
    const absl::Status status = check.run(world);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (!Report(world, check.name, status, elapsed.count())) return false;
  }
  return true;
}

bool Run(const std::string& what) {
  const auto world = MakeMpiWorld(/*timeout_seconds=*/120);
  if (!world.ok()) {
    std::printf("MakeMpiWorld: %s\n", world.status().ToString().c_str());
    return false;
  }
  if (what != "timeouts") return RunChecks(**world, ControlChecks()) && RunChecks(**world, CommunicatorChecks());
  const auto hasty = MakeMpiWorld(/*timeout_seconds=*/0.5);
  if (!hasty.ok()) return false;
  return Report(**world, "Timeouts", CheckTimeouts(**hasty, **world), 0);
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  if (!cairn::Run(argc > 1 ? argv[1] : "")) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Finalize();
  return 0;
}
