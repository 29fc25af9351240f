#include "parallel/comm/control_channel.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace cairn {

absl::Status AgreeOnStatus(ControlChannel& channel, const absl::Status& mine) {
  if (channel.size() == 1) return mine;
  std::string report;
  if (!mine.ok()) {
    report = absl::StrCat(mine.raw_code(), "\n", channel.host(), "\n", absl::string_view(mine.message()));
  }
  absl::StatusOr<std::vector<std::string>> reports = channel.AllGather(report);
  if (!reports.ok()) return mine.ok() ? reports.status() : mine;
  for (int rank = 0; rank < channel.size(); ++rank) {
    const std::string& text = (*reports)[rank];
    if (text.empty()) continue;
    const std::vector<std::string> fields = absl::StrSplit(text, absl::MaxSplits('\n', 2));
    int code = 0;
    if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &code)) {
      return absl::InternalError(absl::StrCat("rank ", rank, " sent a status that does not parse: ", text));
    }
    return absl::Status(static_cast<absl::StatusCode>(code),
                        absl::StrCat("rank ", rank, " on ", fields[1], ": ", fields[2]));
  }
  return absl::OkStatus();
}

}  // namespace cairn
