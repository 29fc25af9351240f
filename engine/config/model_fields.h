// The fields of a Hugging Face config.json, in old and new spellings, as a checked ModelConfig. configs/models/*.yaml
// has the same fields.
#ifndef CAIRN_ENGINE_CONFIG_MODEL_FIELDS_H_
#define CAIRN_ENGINE_CONFIG_MODEL_FIELDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config/fields.h"
#include "engine/model/model_config.h"

namespace cairn {

// INVALID_ARGUMENT names file, field, value and what is supported. Defaults are those of transformers' config classes;
// sizes have none.
absl::StatusOr<ModelConfig> ModelConfigFromFields(Fields& fields, const std::string& name);

// Every field that is read: all that a YAML shape may hold. The second list is that of rope_parameters and
// rope_scaling.
const std::vector<std::string>& ModelFieldNames();
const std::vector<std::string>& RopeFieldNames();

// Ids of the field `name` (an integer, a list, or not there).
std::vector<int32_t> TokenIds(Fields& fields, const std::string& name);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_MODEL_FIELDS_H_
