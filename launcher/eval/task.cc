#include "launcher/eval/task.h"

#include <memory>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/core/fnv1a.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/json_limits.h"
#include "launcher/batch/line_reader.h"
#include "launcher/exit_codes.h"
#include "launcher/nearest_name.h"

namespace cairn {
namespace {

constexpr size_t kLongestId = 400;  // bytes

struct Reader {
  const char* name;
  absl::StatusOr<Task> (*read)(const TaskOptions&);
  bool needs_file;
  bool has_lengths, has_depths;
};

constexpr Reader kReaders[] = {{"file", ReadTaskFile, true, false, false},   {"gsm8k", ReadGsm8k, true, false, false},
                               {"math500", ReadMath500, true, false, false}, {"aime", ReadAime, true, false, false},
                               {"needle", MakeNeedle, false, true, true},    {"demo", ReadDemo, false, true, false}};

absl::Status CheckQuestions(const Task& task) {
  if (task.questions.empty()) {
    return WithExitCode(absl::InvalidArgumentError(absl::StrCat("task ", task.name, ": ", task.source,
                                                                " has no question that the flags leave in")),
                        kExitBadInput);
  }
  absl::flat_hash_set<std::string> ids;
  for (const Question& question : task.questions) {
    if (question.id.size() > kLongestId || !ids.insert(question.id).second) {
      return WithExitCode(absl::InvalidArgumentError(absl::StrCat(task.source, ": two questions have the id '",
                                                                  question.id.substr(0, 60), "', or it is longer than ",
                                                                  kLongestId, " bytes: results are told apart by it")),
                          kExitBadInput);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Task> ReadTask(const TaskOptions& options) {
  std::vector<std::string> names;
  for (const Reader& reader : kReaders) {
    names.push_back(reader.name);
    if (options.name != reader.name) continue;
    if (reader.needs_file && options.file.empty()) {
      return UsageError(absl::StrCat(
          "--task=", options.name, " needs --input-file (-i), the file of its questions: docs/eval.md has the format"));
    }
    if (!reader.has_lengths && !options.lengths.empty()) {
      return UsageError(absl::StrCat("--lengths belongs to the tasks needle and demo, not to ", options.name));
    }
    if (!reader.has_depths && !options.depths.empty()) {
      return UsageError(absl::StrCat("--depths belongs to the task needle, not to ", options.name));
    }
    CAIRN_ASSIGN_OR_RETURN(Task task, reader.read(options));
    task.name = reader.name;
    CAIRN_RETURN_IF_ERROR(CheckQuestions(task));
    return task;
  }
  const std::string nearest = NearestName(options.name, names);
  return UsageError(absl::StrCat("--task=", options.name, ": must be one of ", absl::StrJoin(names, ", "),
                                 nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
}

absl::Status ForEachTaskLine(const std::string& path, uint64_t& hash,
                             const std::function<absl::Status(const nlohmann::json& line, int64_t number)>& read) {
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> reader, LineReader::Open(path));
  hash = kFnv1aSeed;
  while (true) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<InputLine> line, reader->Next());
    if (!line.has_value()) return absl::OkStatus();
    for (const unsigned char byte : line->text) hash = Fnv1a(hash, byte);
    const auto failed = [&](absl::string_view message) {
      return WithExitCode(absl::InvalidArgumentError(absl::StrCat(path, ":", line->number, ": ", message)),
                          kExitBadInput);
    };
    if (line->too_long) return failed(absl::StrCat("longer than ", LineReader::kMaxLineBytes, " bytes"));
    const absl::StatusOr<nlohmann::json> value = ParseBoundedJson(line->text);
    if (!value.ok()) return failed(value.status().message());
    if (!value->is_object()) return failed("expected a JSON object");
    if (const absl::Status status = read(*value, line->number); !status.ok()) return failed(status.message());
  }
}

absl::StatusOr<std::string> TextField(const nlohmann::json& line, const std::string& field) {
  const auto found = line.find(field);
  if (found == line.end()) return absl::InvalidArgumentError(absl::StrCat("field \"", field, "\" is missing"));
  if (!found->is_string()) return absl::InvalidArgumentError(absl::StrCat("field \"", field, "\": expected a text"));
  return found->get<std::string>();
}

}  // namespace cairn
