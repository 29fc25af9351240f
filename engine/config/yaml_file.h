// YAML files, parsed with errors as Status. The only includes of yaml-cpp are in this folder.
#ifndef CAIRN_ENGINE_CONFIG_YAML_FILE_H_
#define CAIRN_ENGINE_CONFIG_YAML_FILE_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "yaml-cpp/yaml.h"

namespace cairn {

// The file's one document: a map, or null where the file is empty. INVALID_ARGUMENT names file and line of a fault.
absl::StatusOr<YAML::Node> ReadYamlFile(const std::string& path);

inline int YamlLine(const YAML::Node& node) { return node.Mark().line + 1; }

// Written without quotes: such a scalar may be a number, a boolean or null.
inline bool IsPlainScalar(const YAML::Node& node) { return node.IsScalar() && node.Tag() != "!"; }

// INVALID_ARGUMENT "PATH:LINE: MESSAGE".
absl::Status YamlError(const std::string& path, const YAML::Node& node, const std::string& message);

// Calls `entry(key, key_node, value)` for each pair of the map, in order. A key that is no scalar, and one that
// occurs twice (which YAML forbids and yaml-cpp lets pass), is an error.
absl::Status ForEachYamlEntry(
    const std::string& path, const YAML::Node& map,
    absl::FunctionRef<absl::Status(const std::string& key, const YAML::Node& key_node, const YAML::Node& value)> entry);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_YAML_FILE_H_
