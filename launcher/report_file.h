// The file that --output-json names.
#ifndef CAIRN_LAUNCHER_REPORT_FILE_H_
#define CAIRN_LAUNCHER_REPORT_FILE_H_

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace cairn {

// Writes `report` there; nothing without the flag.
absl::Status WriteOutputJson(const nlohmann::ordered_json& report);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_REPORT_FILE_H_
