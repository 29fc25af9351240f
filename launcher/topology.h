// The start-up table: who is where and holds what.
#ifndef CAIRN_LAUNCHER_TOPOLOGY_H_
#define CAIRN_LAUNCHER_TOPOLOGY_H_

#include <string>
#include <vector>

#include "engine/engine.h"

namespace cairn {

// Rows of cells under a header, columns aligned, two spaces between.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

std::string TopologyTable(const std::vector<RankInfo>& ranks);

// "GPU KV cache size: N tokens" and "Maximum concurrency for L tokens per request: X.XXx" as vLLM says it, per replica,
// the latter also for compressed sequences. `options` are the engine's, resolved.
std::string KvCacheLines(const KvCapacity& capacity, const EngineOptions& options);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_TOPOLOGY_H_
