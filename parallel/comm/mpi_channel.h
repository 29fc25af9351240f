// Ranks as MPI processes. mpi.h stays in the mpi_* files of this folder, and out of this header.
#ifndef CAIRN_PARALLEL_COMM_MPI_CHANNEL_H_
#define CAIRN_PARALLEL_COMM_MPI_CHANNEL_H_

#include <memory>

#include "parallel/comm/control_channel.h"

namespace cairn {

// The world. MPI must be initialised (launcher/bootstrap does it) and outlive the channel. Waits longer than
// `timeout_seconds` inside a collective or Recv of tensors are DEADLINE_EXCEEDED.
absl::StatusOr<std::unique_ptr<ControlChannel>> MakeMpiWorld(double timeout_seconds);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MPI_CHANNEL_H_
