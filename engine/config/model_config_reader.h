// config.json (Hugging Face, old and new transformers) and configs/models/*.yaml to a checked ModelConfig.
#ifndef CAIRN_ENGINE_CONFIG_MODEL_CONFIG_READER_H_
#define CAIRN_ENGINE_CONFIG_MODEL_CONFIG_READER_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"

namespace cairn {

// `directory`/config.json and generation_config.json. Accepts torch_dtype or dtype, rope_theta/rope_scaling or
// rope_parameters. INVALID_ARGUMENT names the file, the field and what is supported; nothing unknown that changes the
// arithmetic (another activation, rope type, architecture, quantization_config) passes silently.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory);

// A YAML file of the same fields, for --load-format dummy. Unknown keys are errors. `name_or_path`: a path, or a name
// in configs/models ("llama-3.1-8b").
absl::StatusOr<ModelConfig> ReadModelConfigYaml(const std::string& name_or_path);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_MODEL_CONFIG_READER_H_
