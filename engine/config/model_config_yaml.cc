#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/config/configs_dir.h"
#include "engine/config/fields.h"
#include "engine/config/model_config_reader.h"
#include "engine/config/model_fields.h"
#include "engine/config/yaml_file.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// A plain scalar that JSON takes for a number, a boolean or null is one; all else is text.
nlohmann::json ScalarToJson(const YAML::Node& node) {
  if (node.IsNull()) return nullptr;
  if (!IsPlainScalar(node)) return node.Scalar();
  const nlohmann::json value = nlohmann::json::parse(node.Scalar(), nullptr, /*allow_exceptions=*/false);
  return value.is_primitive() && !value.is_discarded() && !value.is_string() ? value : nlohmann::json(node.Scalar());
}

// Reads the map's entries into JSON, keeping the lines. Only the fields named in `known` may be there.
class ShapeFile {
 public:
  explicit ShapeFile(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<nlohmann::json> ToJson(const YAML::Node& map, const std::vector<std::string>& known,
                                        const std::string& prefix) {
    nlohmann::json object = nlohmann::json::object();
    CAIRN_RETURN_IF_ERROR(ForEachYamlEntry(
        path_, map, [&](const std::string& key, const YAML::Node& key_node, const YAML::Node& value) -> absl::Status {
          if (std::find(known.begin(), known.end(), key) == known.end())
            return YamlError(path_, key_node,
                             absl::StrCat("unknown key ", prefix, key, "; known are ", absl::StrJoin(known, ", ")));
          lines_[prefix + key] = YamlLine(key_node);
          CAIRN_ASSIGN_OR_RETURN(object[key], ValueToJson(value, prefix + key));
          return absl::OkStatus();
        }));
    return object;
  }
  const FieldLines& lines() const { return lines_; }

 private:
  absl::StatusOr<nlohmann::json> ValueToJson(const YAML::Node& value, const std::string& field) {
    if (value.IsMap() && (field == "rope_parameters" || field == "rope_scaling"))
      return ToJson(value, RopeFieldNames(), field + ".");
    if (value.IsScalar() || value.IsNull()) return ScalarToJson(value);
    nlohmann::json list = nlohmann::json::array();
    for (const YAML::Node& item : value) {
      if (!value.IsSequence() || !item.IsScalar())
        return YamlError(path_, value, absl::StrCat(field, " must be one value or a list of values"));
      list.push_back(ScalarToJson(item));
    }
    return list;
  }

  std::string path_;
  FieldLines lines_;
};

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfigYaml(const std::string& name_or_path) {
  CAIRN_ASSIGN_OR_RETURN(const std::string path, FindConfig("models", name_or_path));
  CAIRN_ASSIGN_OR_RETURN(const YAML::Node document, ReadYamlFile(path));
  ShapeFile file(path);
  CAIRN_ASSIGN_OR_RETURN(const nlohmann::json json, file.ToJson(document, ModelFieldNames(), ""));
  Fields fields(path, json, file.lines());
  return ModelConfigFromFields(fields, std::filesystem::path(path).stem().string());
}

}  // namespace cairn
