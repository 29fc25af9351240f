#include "engine/config/model_config_reader.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/config/fields.h"
#include "engine/config/json_file.h"
#include "engine/config/model_fields.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;

// The directory's own name, also where it is written "models/x/" or ".".
std::string DirectoryName(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::weakly_canonical(directory, error);
  return error || path.filename().empty() ? directory : path.filename().string();
}

// What stops a generation is often corrected in generation_config.json (Llama 3 Instruct's <|eot_id|>).
absl::Status ReadGenerationConfig(const std::string& directory, ModelConfig& config) {
  const std::string path = absl::StrCat(directory, "/generation_config.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(json.status())) return absl::OkStatus();
  if (!json.ok()) return json.status();
  const FieldLines no_lines;
  Fields fields(path, *json, no_lines);
  if (fields.Has("eos_token_id")) config.eos_token_ids = TokenIds(fields, "eos_token_id");
  return fields.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/config.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(json.status()))
    return absl::NotFoundError(absl::StrCat(
        json.status().message(), "; a model is a Hugging Face directory with config.json and *.safetensors"));
  if (!json.ok()) return json.status();
  const FieldLines no_lines;
  Fields fields(path, *json, no_lines);
  CAIRN_ASSIGN_OR_RETURN(ModelConfig config, ModelConfigFromFields(fields, DirectoryName(directory)));
  CAIRN_RETURN_IF_ERROR(ReadGenerationConfig(directory, config));
  return config;
}

}  // namespace cairn
