// The fields of a request's body, by name: which exist, which of them are used, and how.
#ifndef CAIRN_LAUNCHER_BATCH_REQUEST_BODY_H_
#define CAIRN_LAUNCHER_BATCH_REQUEST_BODY_H_

#include <optional>

#include "launcher/batch/batch_item.h"
#include "nlohmann/json.hpp"

namespace cairn {

// Fills `item` (whose endpoint is set) from an object. The error's message names the field as "body.field".
std::optional<ItemError> ReadRequestBody(const nlohmann::json& body, BatchItem& item);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_REQUEST_BODY_H_
