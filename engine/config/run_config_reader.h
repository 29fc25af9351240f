// A --config file: YAML with the same keys as the flags (dashes or underscores).
#ifndef CAIRN_ENGINE_CONFIG_RUN_CONFIG_READER_H_
#define CAIRN_ENGINE_CONFIG_RUN_CONFIG_READER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cairn {

struct RunConfigEntry {
  std::string key;    // underscores
  std::string value;  // scalar as text; true/false for booleans; a list as "a,b,c"
  int line = 0;       // 1-based, for messages
};

// The file's entries in order. A nested map `block: {key: value}` gives key "block.key". INVALID_ARGUMENT names file
// and line on a syntax error or a duplicate key. Which keys exist is the flags' business: the caller refuses unknown
// ones.
absl::StatusOr<std::vector<RunConfigEntry>> ReadRunConfig(const std::string& path);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_RUN_CONFIG_READER_H_
