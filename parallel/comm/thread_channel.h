// Ranks as threads of one process: the whole engine in a unit test, and one rank without MPI.
#ifndef CAIRN_PARALLEL_COMM_THREAD_CHANNEL_H_
#define CAIRN_PARALLEL_COMM_THREAD_CHANNEL_H_

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

// One channel per rank, all of one world; each may be used from its own thread. Waits longer than `timeout_seconds`
// inside a collective or Recv of tensors are DEADLINE_EXCEEDED; zero waits for ever.
std::vector<std::unique_ptr<ControlChannel>> MakeThreadWorld(int size, double timeout_seconds = 0);

// The world of one rank.
std::unique_ptr<ControlChannel> MakeSingleRankWorld();

// Runs body(channel) once per rank, each on its own thread, and returns what they returned. A rank that returns an
// error aborts the others' waits; a wait for a rank that has returned OK and left nothing to receive is UNAVAILABLE.
std::vector<absl::Status> RunThreadRanks(int size, absl::FunctionRef<absl::Status(ControlChannel&)> body,
                                         double timeout_seconds = 0);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_THREAD_CHANNEL_H_
