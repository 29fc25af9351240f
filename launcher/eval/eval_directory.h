// The directory of an evaluation: what was asked, what was answered, so that nothing is answered twice.
//
//   manifest.json           what the answers depend on; another evaluation is not mixed in
//   requests.jsonl          the questions of the latest run, as `cairn run-batch` takes them
//   answers/SETTING.jsonl   the answers under one setting, as `cairn run-batch` writes them
//   sessions.jsonl          for each setting that ran: seconds, tokens, memory
//   report.json, accuracy.svg
//   answers/shadow-SETTING.json, shadow.svg   with --shadow-full: what compactions have lost
#ifndef CAIRN_LAUNCHER_EVAL_EVAL_DIRECTORY_H_
#define CAIRN_LAUNCHER_EVAL_EVAL_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launcher/batch/result_writer.h"
#include "nlohmann/json.hpp"

namespace cairn {

// For people to read too; bytes that are not UTF-8 become U+FFFD.
std::string IndentedJson(const nlohmann::ordered_json& json);

struct EvalSession {
  std::string setting = {};  // key
  double seconds = 0;        // of answering, without loading
  int64_t generated_tokens = 0;
  int64_t peak_running = 0, preemptions = 0;
  int64_t kv_cache_bytes = 0;  // of a rank, the largest
};

class EvalDirectory {
 public:
  // Makes `path`, or takes one that an evaluation has left: `resume` continues it where its manifest says the same,
  // `overwrite` deletes its answers; without either a directory with answers is refused (exit code 64). One process at
  // a time.
  static absl::StatusOr<std::unique_ptr<EvalDirectory>> Open(const std::string& path,
                                                             const nlohmann::ordered_json& manifest, bool resume,
                                                             bool overwrite);

  struct Answers {
    std::vector<nlohmann::json> records;  // in the order of the file
    int64_t bytes = 0;                    // of the whole lines
  };
  // The setting's answers so far. What a crash left of the last line is not counted; damage before it is an error (exit
  // code 65) with file and line.
  absl::StatusOr<Answers> ReadAnswers(const std::string& setting) const;
  // To append to them: `bytes` as ReadAnswers gave.
  absl::StatusOr<std::unique_ptr<LineFile>> OpenAnswers(const std::string& setting, int64_t bytes) const;

  const std::vector<EvalSession>& sessions() const { return sessions_; }
  absl::Status AddSession(const EvalSession& session);

  // None where there is no such file.
  absl::StatusOr<std::optional<nlohmann::json>> ReadJson(const std::string& name) const;
  // Replace a file of the directory.
  absl::Status WriteJson(const std::string& name, const nlohmann::ordered_json& json) const;
  absl::Status WriteFile(const std::string& name, const std::string& content) const;
  std::string PathOf(const std::string& name) const;

 private:
  explicit EvalDirectory(std::string path) : path_(std::move(path)) {}
  absl::Status CheckManifest(const nlohmann::ordered_json& manifest) const;
  absl::Status DeleteAnswers() const;
  absl::Status ReadSessions();
  std::string AnswersPath(const std::string& setting) const;

  std::string path_;
  std::unique_ptr<LineFile> session_file_;  // also keeps other processes out
  std::vector<EvalSession> sessions_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_EVAL_DIRECTORY_H_
