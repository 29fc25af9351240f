// What doctor found: findings of every rank, merged into one table.
#ifndef CAIRN_LAUNCHER_DOCTOR_REPORT_H_
#define CAIRN_LAUNCHER_DOCTOR_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace cairn {

enum class Verdict : uint8_t { kOk, kWarn, kFail };

struct Finding {
  std::string check;  // "memory"
  Verdict verdict = Verdict::kOk;
  std::string detail;        // what was found
  std::string fix;           // what to do; of a warning or a failure
  bool among_ranks = false;  // a failure to reach or agree with other ranks, rather than of the input
};

std::string EncodeFindings(const std::vector<Finding>& findings);
std::vector<Finding> DecodeFindings(const std::string& bytes);

// A finding with where it holds: "all ranks", "rank 2 (hostA)", "ranks 0-3 (hostA)".
struct ReportLine {
  Finding finding;
  std::string where;
};

// findings[rank], hosts[rank]. Equal findings become one line; lines stay in the order of the checks.
std::vector<ReportLine> MergeFindings(const std::vector<std::vector<Finding>>& findings,
                                      const std::vector<std::string>& hosts);

std::string ReportTable(const std::vector<ReportLine>& lines);
nlohmann::ordered_json ReportJson(const std::vector<ReportLine>& lines);
// 0 without a failure, 70 for one among the ranks, else 65.
int ReportExitCode(const std::vector<ReportLine>& lines);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_DOCTOR_REPORT_H_
