// GSM8K, MATH-500 and AIME, as their files are published.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/answer_text.h"
#include "launcher/eval/task.h"

namespace cairn {
namespace {

using nlohmann::json;

// The first of the fields that the line has: copies of a data set name them differently.
absl::StatusOr<std::string> FirstField(const json& line, std::initializer_list<const char*> fields) {
  for (const char* field : fields) {
    if (!line.contains(field)) continue;
    if (line[field].is_number_integer()) return line[field].dump();
    return TextField(line, field);
  }
  return absl::InvalidArgumentError(absl::StrCat("field \"", *fields.begin(), "\" is missing"));
}

}  // namespace

// {"question", "answer"}, the number after "####" (github.com/openai/grade-school-math).
absl::StatusOr<Task> ReadGsm8k(const TaskOptions& options) {
  Task task{.source = options.file,
            .prompt_template = "{prompt}\nThink step by step and put the final number in \\boxed{}.",
            .max_tokens = 512};
  int64_t index = 0;
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(options.file, task.source_hash, [&](const json& line, int64_t) {
    CAIRN_ASSIGN_OR_RETURN(std::string prompt, TextField(line, "question"));
    CAIRN_ASSIGN_OR_RETURN(const std::string solution, TextField(line, "answer"));
    const size_t mark = solution.rfind("####");
    if (mark == std::string::npos) return absl::InvalidArgumentError("field \"answer\" has no number after \"####\"");
    const std::optional<std::string> number = PlainNumber(Trim(std::string_view(solution).substr(mark + 4)));
    if (!number.has_value()) return absl::InvalidArgumentError("field \"answer\": what follows \"####\" is no number");
    std::string id = absl::StrCat("gsm8k-", index);
    if (options.Wants(index++)) {
      task.questions.push_back({.id = std::move(id),
                                .group = "",
                                .prompt = std::move(prompt),
                                .expected = {.match = Match::kNumber, .answers = {*number}},
                                .max_tokens = std::nullopt});
    }
    return absl::OkStatus();
  }));
  return task;
}

// {"problem", "answer", "level", "unique_id"} (github.com/openai/prm800k).
absl::StatusOr<Task> ReadMath500(const TaskOptions& options) {
  Task task{.source = options.file,
            .prompt_template = "{prompt}\nPlease reason step by step, and put your final answer within \\boxed{}.",
            .max_tokens = 1024};
  int64_t index = 0;
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(options.file, task.source_hash, [&](const json& line, int64_t) {
    CAIRN_ASSIGN_OR_RETURN(std::string prompt, FirstField(line, {"problem", "question"}));
    CAIRN_ASSIGN_OR_RETURN(std::string answer, FirstField(line, {"answer"}));
    std::string id = absl::StrCat("math500-", index);
    if (options.Wants(index++)) {
      task.questions.push_back(
          {.id = std::move(id),
           .group = line.contains("level")
                        ? absl::StrCat("level ", line["level"].is_string() ? line["level"].get<std::string>()
                                                                           : line["level"].dump())
                        : "",
           .prompt = std::move(prompt),
           .expected = {.match = Match::kMath, .answers = {std::move(answer)}},
           .max_tokens = std::nullopt});
    }
    return absl::OkStatus();
  }));
  return task;
}

// {"problem" | "Problem" | "question", "answer" | "Answer"}: a whole number from 0 to 999, perhaps with leading zeros.
absl::StatusOr<Task> ReadAime(const TaskOptions& options) {
  Task task{.source = options.file,
            .prompt_template = "{prompt}\nPlease reason step by step, and put your final answer within \\boxed{}."};
  int64_t index = 0;
  CAIRN_RETURN_IF_ERROR(ForEachTaskLine(options.file, task.source_hash, [&](const json& line, int64_t) {
    CAIRN_ASSIGN_OR_RETURN(std::string prompt, FirstField(line, {"problem", "Problem", "question"}));
    CAIRN_ASSIGN_OR_RETURN(const std::string answer, FirstField(line, {"answer", "Answer"}));
    const std::optional<std::string> number = PlainNumber(Trim(answer));
    if (!number.has_value() || number->size() > 3 || number->find_first_of("-.") != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("field \"answer\" is \"", answer.substr(0, 40), "\": must be a whole number from 0 to 999"));
    }
    std::string id = absl::StrCat("aime-", index);
    if (options.Wants(index++)) {
      task.questions.push_back({.id = std::move(id),
                                .group = "",
                                .prompt = std::move(prompt),
                                .expected = {.match = Match::kMath, .answers = {*number}},
                                .max_tokens = std::nullopt});
    }
    return absl::OkStatus();
  }));
  return task;
}

}  // namespace cairn
