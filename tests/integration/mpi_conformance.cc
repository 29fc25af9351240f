// The conformance checks in a world of MPI ranks: started by mpirun, one line per check from rank 0, non-zero exit when
// any rank failed one.
//
//   mpi_conformance all        what every channel and communicator must do
//   mpi_conformance timeouts   waits that end with an error
//   mpi_conformance aborts | is-killed | exits
//                              rank 1 ends in that way while the others wait for it in a collective:
//                              mpi_conformance_failures.sh looks at what is left
#include <mpi.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "parallel/comm/mpi_channel.h"
#include "tests/parallel/conformance.h"

namespace cairn {
namespace {

// Rank 1 goes, the others wait for it for as long as it takes.
absl::Status Fail(ControlChannel& world, const std::string& how) {
  const auto comm = world.SplitCommunicator(0, world.rank());
  if (!comm.ok()) return comm.status();
  std::printf("pid %d\n", getpid());
  std::fflush(stdout);
  if (const absl::Status status = world.Barrier(); !status.ok()) return status;
  sleep(1);
  if (world.rank() == 1) {
    if (how == "aborts") world.Abort(70, "layer 3: out of luck\nand out of lines");
    if (how == "is-killed") std::raise(SIGKILL);
    _exit(3);
  }
  std::vector<float> data(100'000);
  const Tensor tensor(data.data(), DType::kFloat32, {100'000});
  if (world.rank() % 2 == 0) return (*comm)->AllReduce(tensor, ReduceOp::kSum);
  return world.Recv(1, 0).status();
}

bool Run(const std::string& what) {
  const auto world = MakeMpiWorld(/*timeout_seconds=*/120);
  if (!world.ok()) {
    std::printf("MakeMpiWorld: %s\n", world.status().ToString().c_str());
    return false;
  }
  if (what == "aborts" || what == "is-killed" || what == "exits") {
    std::printf("the wait ended: %s\n", Fail(**world, what).ToString().c_str());
    return false;
  }
  if (what != "timeouts") {
    return RunChecks(**world, ControlChecks()) && RunChecks(**world, CommunicatorChecks()) &&
           RunChecks(**world, HeavyChecks());
  }
  const auto hasty = MakeMpiWorld(/*timeout_seconds=*/0.5);
  if (!hasty.ok()) return false;
  return RunCheck(**world, "Timeouts", [&] { return CheckTimeouts(**hasty, **world); });
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
