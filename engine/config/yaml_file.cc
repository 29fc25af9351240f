#include "engine/config/yaml_file.h"

#include <map>

#include "engine/config/json_file.h"
#include "kernels/core/status_macros.h"

namespace cairn {

namespace {
constexpr int64_t kMaxYamlBytes = 1 << 20;
}  // namespace

absl::StatusOr<YAML::Node> ReadYamlFile(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxYamlBytes));
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.empty()) return YAML::Node();
    if (documents.size() > 1)
      return YamlError(path, documents[1],
                       absl::StrCat("a second document; a file holds one, here are ", documents.size()));
    if (!documents[0].IsMap() && !documents[0].IsNull())
      return YamlError(path, documents[0], "the file must be a map of `key: value` lines");
    return documents[0];
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", e.mark.line + 1, ": not valid YAML: ", e.msg));
  }
}

absl::Status YamlError(const std::string& path, const YAML::Node& node, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(path, ":", YamlLine(node), ": ", message));
}

absl::Status ForEachYamlEntry(
    const std::string& path, const YAML::Node& map,
    absl::FunctionRef<absl::Status(const std::string& key, const YAML::Node& key_node, const YAML::Node& value)>
        entry) {
  std::map<std::string, int> seen;
  for (const auto& pair : map) {
    if (!pair.first.IsScalar()) return YamlError(path, pair.first, "a key must be plain text");
    const std::string& key = pair.first.Scalar();
    const auto [first, is_new] = seen.emplace(key, YamlLine(pair.first));
    if (!is_new)
      return YamlError(path, pair.first,
                       absl::StrCat("key ", key, " is given twice (first on line ", first->second, ")"));
    CAIRN_RETURN_IF_ERROR(entry(key, pair.first, pair.second));
  }
  return absl::OkStatus();
}

}  // namespace cairn
