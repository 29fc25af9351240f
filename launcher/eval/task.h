// What is asked: questions with what is expected of their answers, read from files or made here.
#ifndef CAIRN_LAUNCHER_EVAL_TASK_H_
#define CAIRN_LAUNCHER_EVAL_TASK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"
#include "launcher/eval/grading.h"
#include "launcher/eval/statistics.h"
#include "nlohmann/json.hpp"

namespace cairn {

struct Question {
  std::string id = {};     // unique in the task
  std::string group = {};  // accuracy is reported for each; "" where the task has none
  std::string prompt = {};
  Expectation expected = {};
  std::optional<int32_t> max_tokens = {};  // of its own
};

// A point of a curve that was measured elsewhere: a policy that knows what will be needed.
struct OraclePoint {
  double kept_share = 0, accuracy = 0;
  Interval interval;  // 95 %
};

struct Task {
  std::string name = {};
  std::string source = {};                 // the file, or what the questions are made from
  uint64_t source_hash = 0;                // of the file's bytes, or of all that the making depends on
  std::string prompt_template = {};        // {prompt} stands for the question
  bool chat = true;                        // sent as a user's message rather than as text to continue
  std::optional<int32_t> max_tokens = {};  // for questions without their own; none: up to the context limit
  std::vector<Question> questions = {};
  std::vector<OraclePoint> oracle = {};  // by kept share; drawn beside our results
};

// What the flags say about a task.
struct TaskOptions {
  std::string name = "file";  // file, gsm8k, math500, aime, needle or demo
  std::string file;           // needle: text for the haystack, "" for one that is made up
  std::string model;          // directory, for the demo task's own file
  int32_t num_questions = 0;  // of each length and depth where the task has them; 0: all (needle: 5)
  int32_t first_question = 0;
  // Whether the two leave in the index-th question of a file, or of a length of it.
  bool Wants(int64_t index) const {
    return index >= first_question && (num_questions == 0 || index < int64_t{first_question} + num_questions);
  }
  std::vector<int64_t> lengths;  // needle: prompt tokens; demo: which of the file's; empty: the task's default
  std::vector<int64_t> depths;   // needle: percent of the text before it
  int64_t seed = 0;
  // The tokens of a prompt as it will be sent; for tasks that are made to a length.
  std::function<absl::StatusOr<int64_t>(const std::string& prompt)> count_tokens;
};

// Errors (exit codes 64 and 65) name the flag, or file, line and field.
absl::StatusOr<Task> ReadTask(const TaskOptions& options);

// --- For the readers (one .cc per family) ---

absl::StatusOr<Task> ReadTaskFile(const TaskOptions& options);
absl::StatusOr<Task> ReadGsm8k(const TaskOptions& options);
absl::StatusOr<Task> ReadMath500(const TaskOptions& options);
absl::StatusOr<Task> ReadAime(const TaskOptions& options);
absl::StatusOr<Task> ReadDemo(const TaskOptions& options);
absl::StatusOr<Task> MakeNeedle(const TaskOptions& options);

// Calls `read` for each object of a JSONL file, until it returns an error, which is then given file and line. Fills
// `hash` with the file's.
absl::Status ForEachTaskLine(const std::string& path, uint64_t& hash,
                             const std::function<absl::Status(const nlohmann::json& line, int64_t number)>& read);

// The text in `line[field]`; INVALID_ARGUMENT names the field.
absl::StatusOr<std::string> TextField(const nlohmann::json& line, const std::string& field);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_TASK_H_
