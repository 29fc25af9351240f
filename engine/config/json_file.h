// Small JSON files of a checkpoint (config.json, generation_config.json, the safetensors index).
#ifndef CAIRN_ENGINE_CONFIG_JSON_FILE_H_
#define CAIRN_ENGINE_CONFIG_JSON_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cairn {

// The whole file. NOT_FOUND where there is none, INVALID_ARGUMENT where it is larger than `max_bytes` or no regular
// file.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes);

// Parses it; the top level must be an object. INVALID_ARGUMENT names the file and the place of the first fault.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, int64_t max_bytes);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_JSON_FILE_H_
