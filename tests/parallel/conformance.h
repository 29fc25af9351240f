// What every ControlChannel and Communicator must do, whatever carries the bytes. The thread world runs these checks in
// parallel_test, MPI worlds in mpi_conformance under a real mpirun.
#ifndef CAIRN_TESTS_PARALLEL_CONFORMANCE_H_
#define CAIRN_TESTS_PARALLEL_CONFORMANCE_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

struct ConformanceCheck {
  const char* name;
  // Called by every rank of the world at once; an error says what this rank saw.
  absl::Status (*run)(ControlChannel& world);
};

std::vector<ConformanceCheck> ControlChecks();
std::vector<ConformanceCheck> CommunicatorChecks();
// Tens of MB and thousands of operations: more than any buffer between processes holds, where there is one.
std::vector<ConformanceCheck> HeavyChecks();

// Checks of waits that end with an error. `world` must have a timeout of less than a second; its ranks disagree
// afterwards about what comes next, so that it is good for nothing else. `outer` (the same ranks) has a long timeout.
absl::Status CheckTimeouts(ControlChannel& world, ControlChannel& outer);

// Runs a check on every rank; rank 0 prints its name and time, each rank what it saw. False where one of them failed.
bool RunCheck(ControlChannel& world, const char* name, absl::FunctionRef<absl::Status()> check);
// False after the first failure: the ranks may be out of step then.
bool RunChecks(ControlChannel& world, const std::vector<ConformanceCheck>& checks);

// INTERNAL with the condition and what follows it, when the condition does not hold.
#define CAIRN_EXPECT(cond, ...)                                                                       \
  do {                                                                                                \
    if (!(cond)) {                                                                                    \
      return absl::InternalError(                                                                     \
          absl::StrCat(__FILE__, ":", __LINE__, ": expected " #cond " " __VA_OPT__(, ) __VA_ARGS__)); \
    }                                                                                                 \
  } while (false)

}  // namespace cairn

#endif  // CAIRN_TESTS_PARALLEL_CONFORMANCE_H_
