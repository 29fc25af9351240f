// Which GPU is whose, and how tensors travel between GPUs: by NCCL, or through the hosts' memory and MPI.
#ifndef CAIRN_PARALLEL_COMM_DEVICE_GROUPS_H_
#define CAIRN_PARALLEL_COMM_DEVICE_GROUPS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/context.h"
#include "parallel/comm/control_channel.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

// --- Which GPU ---

// A GPU for each rank of a host. visible[i]: the ids of those that rank i sees, which CUDA_VISIBLE_DEVICES may have cut
// down for all ranks or for each in its own way. Returns indices into visible[i]. Ranks get GPUs of their own, the
// first rank the first one, wherever that is possible; where ranks are more than GPUs, some share. A rank that sees
// none is UNAVAILABLE.
absl::StatusOr<std::vector<int>> AssignGpus(const std::vector<std::vector<std::string>>& visible);

// Collective over `world`: this rank's among the GPUs that CUDA shows it.
absl::StatusOr<int> ChooseGpu(ControlChannel& world);

// --- Which data plane ---

enum class DeviceComm { kAuto, kMpi, kNccl };  // --comm

// INVALID_ARGUMENT names what is allowed.
absl::StatusOr<DeviceComm> ParseDeviceComm(const std::string& name);

// What a rank brings along.
struct RankGpu {
  std::string host, gpu;   // the host as NCCL tells hosts apart (NCCL_HOSTID, or its name); the GPU's id
  int nccl_version = 0;    // of the library that it can load, such as 22809; 0 where there is none
  std::string nccl_error;  // why
  bool may_share = false;  // NCCL_MULTI_RANK_GPU_ENABLE=1

  // Whether its NCCL takes it as one of several ranks on a GPU.
  bool MayShareGpu() const;
};

struct CommChoice {
  DeviceComm comm = DeviceComm::kMpi;
  std::string text;  // "NCCL 2.28.9", "MPI through host memory: ranks 0 and 1 share a GPU"
};

// kNccl or kMpi, the same on every rank. FAILED_PRECONDITION where NCCL is asked for and cannot be, with what to do.
absl::StatusOr<CommChoice> ChooseComm(const std::vector<RankGpu>& ranks, const ParallelSizes& sizes, DeviceComm wanted);

// This rank's part of the above: its library, loaded, and its GPU.
RankGpu DescribeRankGpu(ControlChannel& world, const Context& context, DeviceComm wanted);

// Collective over groups.world; an error is every rank's. `context` is on a GPU: groups.tp and groups.pp, made for host
// memory, take tensors of that GPU as well from now on. They may outlive the context, but not be used then.
absl::StatusOr<CommChoice> ConnectGpus(ProcessGroups& groups, Context& context, DeviceComm wanted,
                                       double timeout_seconds);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_DEVICE_GROUPS_H_
