// JSON from strangers: parsed with bounds, so that no line can take the process down.
#ifndef CAIRN_LAUNCHER_BATCH_JSON_LIMITS_H_
#define CAIRN_LAUNCHER_BATCH_JSON_LIMITS_H_

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cairn {

// Nesting beyond 64 (copying and freeing recurse) and more than two million values (each takes tens of bytes) are
// refused, as is all that is not valid JSON in UTF-8. INVALID_ARGUMENT with the column.
absl::StatusOr<nlohmann::json> ParseBoundedJson(const std::string& text);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_JSON_LIMITS_H_
