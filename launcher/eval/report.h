// An evaluation's results as a table for people and as JSON (docs/eval.md).
#ifndef CAIRN_LAUNCHER_EVAL_REPORT_H_
#define CAIRN_LAUNCHER_EVAL_REPORT_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launcher/eval/results.h"
#include "launcher/eval/shadow.h"
#include "nlohmann/json.hpp"

namespace cairn {

struct EvalReport {
  std::string task = {}, source = {}, model = {};
  int64_t num_questions = 0;
  std::vector<int64_t> seeds = {};
  std::optional<double> mean_full_length = {};                         // tokens of prompt + answer
  std::vector<SettingResult> settings = {};                            // the full cache first, where it was measured
  std::vector<OraclePoint> oracle = {};                                // the task's
  std::vector<std::pair<std::string, ShadowStatistics>> shadows = {};  // by key, of the settings that have one
  std::vector<std::pair<std::string, std::string>> flags = {};         // names and values
};

std::string EvalReportTable(const EvalReport& report);
nlohmann::ordered_json EvalReportJson(const EvalReport& report);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_REPORT_H_
