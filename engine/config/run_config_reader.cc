#include "engine/config/run_config_reader.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/config/yaml_file.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

class RunConfigFile {
 public:
  explicit RunConfigFile(std::string path) : path_(std::move(path)) {}

  absl::Status AddMap(const YAML::Node& map, const std::string& prefix) {
    return ForEachYamlEntry(path_, map,
                            [&](const std::string& written, const YAML::Node& key_node, const YAML::Node& value) {
                              std::string key = prefix + written;
                              std::replace(key.begin(), key.end(), '-', '_');
                              return Add(key, key_node, value, /*nested=*/!prefix.empty());
                            });
  }
  std::vector<RunConfigEntry> Take() { return std::move(entries_); }

 private:
  absl::Status Add(const std::string& key, const YAML::Node& key_node, const YAML::Node& value, bool nested) {
    const int line = YamlLine(key_node);
    // Dashes and underscores are the same key, which YAML cannot know.
    const auto [first, is_new] = lines_.emplace(key, line);
    if (!is_new)
      return YamlError(path_, key_node,
                       absl::StrCat("key ", key, " is given twice (first on line ", first->second, ")"));
    if (value.IsMap()) {
      if (nested) return YamlError(path_, key_node, absl::StrCat("key ", key, ": maps nest one level deep, not two"));
      return AddMap(value, key + ".");
    }
    CAIRN_ASSIGN_OR_RETURN(std::string text,
                           value.IsSequence() ? ListText(key, value) : ScalarText(key, key_node, value));
    entries_.push_back({key, std::move(text), line});
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ScalarText(const std::string& key, const YAML::Node& key_node, const YAML::Node& value) {
    if (!value.IsScalar()) return YamlError(path_, key_node, absl::StrCat("key ", key, " has no value"));
    const std::string lower = absl::AsciiStrToLower(value.Scalar());
    return IsPlainScalar(value) && (lower == "true" || lower == "false") ? lower : value.Scalar();
  }

  absl::StatusOr<std::string> ListText(const std::string& key, const YAML::Node& list) {
    std::vector<std::string> items;
    for (const YAML::Node& item : list) {
      CAIRN_ASSIGN_OR_RETURN(std::string text, ScalarText(key, list, item));
      if (text.find(',') != std::string::npos)
        return YamlError(path_, item, absl::StrCat("key ", key, ": an item of a list cannot contain a comma: ", text));
      items.push_back(std::move(text));
    }
    return absl::StrJoin(items, ",");
  }

  std::string path_;
  std::map<std::string, int> lines_;
  std::vector<RunConfigEntry> entries_;
};

}  // namespace

absl::StatusOr<std::vector<RunConfigEntry>> ReadRunConfig(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const YAML::Node document, ReadYamlFile(path));
  RunConfigFile file(path);
  CAIRN_RETURN_IF_ERROR(file.AddMap(document, ""));
  return file.Take();
}

}  // namespace cairn
