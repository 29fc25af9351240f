// Doctor's checks, as one rank makes them.
#ifndef CAIRN_LAUNCHER_DOCTOR_CHECKS_H_
#define CAIRN_LAUNCHER_DOCTOR_CHECKS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/model/model_config.h"
#include "engine/weights/quantization.h"
#include "kernels/core/device.h"
#include "launcher/doctor_report.h"
#include "parallel/comm/control_channel.h"
#include "parallel/comm/process_groups.h"
#include "parallel/shard/shard.h"

namespace cairn {

// Cores, threads, binding, and whether this host has more ranks than cores.
std::vector<Finding> CheckCores(int local_ranks, int bound_cores, int online_cores, int threads_flag);

// Files of the model: config, tokenizer, headers of the weights; nothing large is read. The config where it could be
// read.
std::vector<Finding> CheckModelFiles(const EngineOptions& options, std::optional<ModelConfig>& config);

// Whether the shape divides over tp, and the layers over pp. `stages` as the engine would have them.
std::vector<Finding> CheckShards(const EngineOptions& options, const ModelConfig& config, std::vector<Range>& stages);

// Bytes of weights that the engine keeps on the rank at `at`, on a device of that kind.
int64_t WeightBytes(const ModelConfig& config, const Range& layers, const RankCoordinates& at,
                    const ParallelSizes& sizes, DType compute, Quantization quantization, Device device = {});

// What a host has free, or a GPU has in all, and the ranks that share it.
struct SharedMemory {
  Device device;
  int64_t bytes = 0;
  int sharers = 1;
};
SharedMemory FindMemory(const EngineOptions& options, int local_ranks);

// Weights and the cache of one sequence of the longest length, against this rank's share; on a GPU activations too.
std::vector<Finding> CheckMemory(const EngineOptions& options, const ModelConfig& config, const Range& layers,
                                 const RankCoordinates& at, const SharedMemory& memory);

// Collective over the groups: a sum over tp, a message along pp, both checked and timed; this rank's view.
std::vector<Finding> CheckGroups(ProcessGroups& groups);

// Collective over groups.world, where the ranks have GPUs: which is whose, how they speak (NCCL or MPI), and the checks
// above between them; this rank's view. An error is one of the control plane.
absl::StatusOr<std::vector<Finding>> CheckGpus(ProcessGroups& groups, const EngineOptions& options,
                                               double timeout_seconds);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_DOCTOR_CHECKS_H_
