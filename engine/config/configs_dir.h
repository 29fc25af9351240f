// Finds the repository's YAML files (configs/models, configs/runs, configs/clusters) by name.
#ifndef CAIRN_ENGINE_CONFIG_CONFIGS_DIR_H_
#define CAIRN_ENGINE_CONFIG_CONFIGS_DIR_H_

#include <string>

#include "absl/status/statusor.h"

namespace cairn {

// The configs folder: $CAIRN_CONFIGS_DIR where it is set, else ../../configs of the running binary's folder
// (build/release/cairn), else the source tree's.
std::string ConfigsDirectory();

// `name_or_path` with a slash or ending in .yaml is a path and comes back as it is; anything else is a name in
// ConfigsDirectory()/`kind` ("models"). NOT_FOUND lists the names there are.
absl::StatusOr<std::string> FindConfig(const std::string& kind, const std::string& name_or_path);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_CONFIGS_DIR_H_
