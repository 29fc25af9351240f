// What this host (or container) has for its ranks.
#ifndef CAIRN_ENGINE_HOST_RESOURCES_H_
#define CAIRN_ENGINE_HOST_RESOURCES_H_

#include <cstdint>

namespace cairn {

// Cores that this process may use (mpirun may have bound it to some), and cores of the host.
int BoundCores();
int OnlineCores();

// Threads for one of `local_ranks` ranks on this host: the cores that it is bound to, or its share of the host's.
int ThreadsFor(int local_ranks);

// Free memory in bytes, within the limit of the container's control group.
int64_t AvailableMemory();

}  // namespace cairn

#endif  // CAIRN_ENGINE_HOST_RESOURCES_H_
