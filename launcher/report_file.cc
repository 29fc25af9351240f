#include "launcher/report_file.h"

#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/result_writer.h"
#include "launcher/flags.h"

namespace cairn {

absl::Status WriteOutputJson(const nlohmann::ordered_json& report) {
  const std::string path = absl::GetFlag(FLAGS_output_json);
  if (path.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<LineFile> file, LineFile::Open(path, "--output-json", true, -1));
  return file->WriteAll(report.dump(2));
}

}  // namespace cairn
