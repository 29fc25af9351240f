// The demo model's held-out problems (models/demo/README.md): chains of 500 to 4,000 tokens whose answers are exact.
#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/task.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

using nlohmann::json;

constexpr int64_t kDefaultLength = 500;

absl::StatusOr<int64_t> WholeField(const json& line, const char* field) {
  if (line.contains(field) && line[field].is_number_integer() && line[field] > 0 && line[field] <= INT32_MAX) {
    return line[field].get<int64_t>();
  }
  return absl::InvalidArgumentError(absl::StrCat("field \"", field, "\": expected a whole number above 0"));
}

// The oracle's accuracy at this length, of the model's evaluation.jsonl; none where it has no such file.
absl::StatusOr<std::vector<OraclePoint>> ReadOracle(const std::string& model, int64_t length) {
  std::vector<OraclePoint> points;
  const std::string path = absl::StrCat(model, "/evaluation.jsonl");
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return points;
  uint64_t hash = 0;
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(path, hash, [&](const json& line, int64_t) {
    if (line.value("policy", json()) != "oracle" || line.value("length", json()) != length) return absl::OkStatus();
    const json share = line.value("share", json()), accuracy = line.value("accuracy", json());
    const json interval = line.value("interval", json());
    const bool known = share.is_number() && share > 0 && accuracy.is_number() && interval.is_array() &&
                       interval.size() == 2 && interval[0].is_number() && interval[1].is_number();
    if (!known) return absl::InvalidArgumentError("expected share, accuracy and interval as numbers");
    points.push_back(
        {share.get<double>(), accuracy.get<double>(), {interval[0].get<double>(), interval[1].get<double>()}});
    return absl::OkStatus();
  }));
  std::sort(points.begin(), points.end(),
            [](const OraclePoint& a, const OraclePoint& b) { return a.kept_share < b.kept_share; });
  return points;
}

}  // namespace

absl::StatusOr<Task> ReadDemo(const TaskOptions& options) {
  const std::string path = options.file.empty() ? absl::StrCat(options.model, "/heldout.jsonl") : options.file;
  Task task{.source = path, .prompt_template = "{prompt}", .chat = false};
  const std::vector<int64_t> lengths = options.lengths.empty() ? std::vector<int64_t>{kDefaultLength} : options.lengths;
  std::map<int64_t, int64_t> seen;  // problems of each length so far
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(path, task.source_hash, [&](const json& line, int64_t) {
    Question question;
    CAIRN_ASSIGN_OR_RETURN(question.id, TextField(line, "id"));
    CAIRN_ASSIGN_OR_RETURN(question.prompt, TextField(line, "prompt"));
    CAIRN_ASSIGN_OR_RETURN(question.expected.answers.emplace_back(), TextField(line, "answer"));
    CAIRN_ASSIGN_OR_RETURN(const int64_t length, WholeField(line, "length"));
    CAIRN_ASSIGN_OR_RETURN(const int64_t tokens, WholeField(line, "tokens"));
    CAIRN_ASSIGN_OR_RETURN(const int64_t prompt_tokens, WholeField(line, "prompt_tokens"));
    const int64_t index = seen[length]++;
    if (std::find(lengths.begin(), lengths.end(), length) == lengths.end()) return absl::OkStatus();
    if (!options.Wants(index)) return absl::OkStatus();
    question.group = absl::StrCat(length, " tokens");
    // A chain that went astray may still come to an end; one that runs in circles is cut off.
    question.max_tokens = static_cast<int32_t>((tokens - prompt_tokens) * 5 / 4);
    task.questions.push_back(std::move(question));
    return absl::OkStatus();
  }));
  for (const int64_t length : lengths) {
    if (seen.contains(length)) continue;
    std::vector<int64_t> known;
    for (const auto& [other, count] : seen) known.push_back(other);
    return UsageError(absl::StrCat("--lengths=", length, ": ", path, " has problems of ", absl::StrJoin(known, ", ")));
  }
  if (lengths.size() == 1) {
    CAIRN_ASSIGN_OR_RETURN(task.oracle, ReadOracle(options.model, lengths[0]));
  }
  return task;
}

}  // namespace cairn
