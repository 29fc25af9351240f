// The checks as programs of their own run them, under mpirun.
#include <chrono>
#include <cstdio>

#include "tests/parallel/conformance.h"

namespace cairn {

bool RunCheck(ControlChannel& world, const char* name, absl::FunctionRef<absl::Status()> check) {
  const auto start = std::chrono::steady_clock::now();
  const absl::Status mine = check();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const absl::Status agreed = AgreeOnStatus(world, mine);
  if (!mine.ok()) std::printf("rank %d: %s\n", world.rank(), mine.ToString().c_str());
  if (world.rank() == 0) std::printf("%-28s %s %.2f s\n", name, agreed.ok() ? "ok    " : "FAILED", elapsed.count());
  std::fflush(stdout);
  return agreed.ok();
}

bool RunChecks(ControlChannel& world, const std::vector<ConformanceCheck>& checks) {
  for (const ConformanceCheck& check : checks) {
    if (!RunCheck(world, check.name, [&] { return check.run(world); })) return false;
  }
  return true;
}

}  // namespace cairn
