// The task `file`: our own format, one question a line (docs/eval.md).
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/task.h"
#include "launcher/nearest_name.h"

namespace cairn {
namespace {

using nlohmann::json;

const std::pair<const char*, Match> kMatches[] = {
    {"exact", Match::kExact}, {"number", Match::kNumber}, {"math", Match::kMath}, {"contains", Match::kContains}};
const std::vector<std::string>& Fields() {
  static const auto& fields =
      *new std::vector<std::string>{"id", "group", "prompt", "answer", "regex", "match", "max_tokens"};
  return fields;
}

// A text or a number, as text.
absl::StatusOr<std::string> AnswerText(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  return absl::InvalidArgumentError("field \"answer\": expected a text, a number, or a list of them");
}

absl::Status ReadAnswers(const json& line, Expectation& expected) {
  const json& value = line["answer"];
  if (!value.is_array()) {
    CAIRN_ASSIGN_OR_RETURN(expected.answers.emplace_back(), AnswerText(value));
  } else {
    for (const json& item : value) {
      CAIRN_ASSIGN_OR_RETURN(expected.answers.emplace_back(), AnswerText(item));
    }
    if (value.empty()) return absl::InvalidArgumentError("field \"answer\": the list is empty");
  }
  if (!line.contains("match")) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const std::string name, TextField(line, "match"));
  for (const auto& [known, match] : kMatches) {
    if (name != known) continue;
    expected.match = match;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("field \"match\" is \"", name, "\": must be exact, number, math or contains"));
}

absl::StatusOr<Expectation> ReadExpectation(const json& line) {
  Expectation expected;
  if (line.contains("answer") == line.contains("regex")) {
    return absl::InvalidArgumentError("give one of the fields \"answer\" and \"regex\"");
  }
  if (line.contains("answer")) {
    CAIRN_RETURN_IF_ERROR(ReadAnswers(line, expected));
    return expected;
  }
  if (line.contains("match")) return absl::InvalidArgumentError("field \"match\" belongs to \"answer\"");
  CAIRN_ASSIGN_OR_RETURN(const std::string pattern, TextField(line, "regex"));
  absl::StatusOr<AnswerRegex> regex = AnswerRegex::Compile(pattern);
  if (!regex.ok()) return absl::InvalidArgumentError(absl::StrCat("field \"regex\": ", regex.status().message()));
  expected.match = Match::kRegex;
  expected.regex = std::make_shared<const AnswerRegex>(*std::move(regex));
  return expected;
}

absl::StatusOr<Question> ReadQuestion(const json& line, int64_t number) {
  for (const auto& [name, value] : line.items()) {
    if (std::find(Fields().begin(), Fields().end(), name) != Fields().end()) continue;
    const std::string nearest = NearestName(name, Fields());
    return absl::InvalidArgumentError(
        absl::StrCat("unknown field \"", name.substr(0, 60), "\"",
                     nearest.empty() ? "" : absl::StrCat(", did you mean \"", nearest, "\"?")));
  }
  Question question;
  question.id = absl::StrCat("line-", number);
  if (line.contains("id")) {
    CAIRN_ASSIGN_OR_RETURN(question.id, TextField(line, "id"));
  }
  if (line.contains("group")) {
    CAIRN_ASSIGN_OR_RETURN(question.group, TextField(line, "group"));
  }
  CAIRN_ASSIGN_OR_RETURN(question.prompt, TextField(line, "prompt"));
  if (question.prompt.empty()) return absl::InvalidArgumentError("field \"prompt\" is empty");
  CAIRN_ASSIGN_OR_RETURN(question.expected, ReadExpectation(line));
  if (const auto found = line.find("max_tokens"); found != line.end()) {
    const bool whole = found->is_number_integer() && *found >= 1 && *found <= INT32_MAX;
    if (!whole) return absl::InvalidArgumentError("field \"max_tokens\": expected a whole number from 1");
    question.max_tokens = found->get<int32_t>();
  }
  return question;
}

}  // namespace

absl::StatusOr<Task> ReadTaskFile(const TaskOptions& options) {
  Task task{.source = options.file, .prompt_template = "{prompt}"};
  int64_t index = 0;
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(options.file, task.source_hash, [&](const json& line, int64_t number) {
    CAIRN_ASSIGN_OR_RETURN(Question question, ReadQuestion(line, number));
    if (options.Wants(index++)) task.questions.push_back(std::move(question));
    return absl::OkStatus();
  }));
  return task;
}

}  // namespace cairn
