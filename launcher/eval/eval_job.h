// Rank 0's part of an evaluation: which setting comes next, what it has still to answer, and the report at the end.
#ifndef CAIRN_LAUNCHER_EVAL_EVAL_JOB_H_
#define CAIRN_LAUNCHER_EVAL_EVAL_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "launcher/batch/line_reader.h"
#include "launcher/batch/result_writer.h"
#include "launcher/eval/eval_directory.h"
#include "launcher/eval/eval_flags.h"
#include "launcher/eval/report.h"
#include "launcher/eval/results.h"
#include "launcher/eval/shadow.h"
#include "launcher/eval/sweep.h"
#include "launcher/eval/task.h"

namespace cairn {

class EvalJob {
 public:
  // Reads or makes the questions and opens the output directory. All that can be wrong with the files is found here,
  // before a model is loaded.
  static absl::StatusOr<std::unique_ptr<EvalJob>> Create(const EvalOptions& options, const EngineOptions& engine,
                                                         const Sweep& sweep);

  // The next setting with unanswered questions; none: all is answered. Resolves percentages once the full cache has
  // been measured.
  struct Run {
    size_t setting = 0;  // of the sweep
    CompressionConfig config;
    std::string label;  // for the progress bar
    std::unique_ptr<LineReader> requests;
    std::unique_ptr<LineFile> answers;
    absl::flat_hash_set<std::string> answered;  // custom_ids that have records
  };
  absl::StatusOr<std::optional<Run>> Next();
  // The setting has run, to its end or to a signal.
  absl::Status Finish(const Run& run, const EvalSession& session);

  // What its compactions have lost, in addition to what an earlier run has left.
  absl::Status AddShadow(const Run& run, const ShadowStatistics& lost);

  int64_t num_answers() const;  // of all settings
  int64_t num_answered() const { return num_answered_; }
  // For every setting the same memory: of a rank, the largest; 0 until a setting has run.
  int64_t kv_cache_bytes() const;

  // Once Next has given none.
  absl::StatusOr<EvalReport> Report();
  const EvalDirectory& directory() const { return *directory_; }

 private:
  EvalJob(const EvalOptions& options, const Sweep& sweep) : options_(options), settings_(sweep.settings) {}
  nlohmann::ordered_json Manifest(const EngineOptions& engine) const;
  absl::Status WriteRequests(const class PromptBuilder& prompts) const;
  absl::StatusOr<CompressionConfig> ConfigOf(size_t setting);
  // Of an earlier run; empty where it has left none.
  absl::StatusOr<ShadowStatistics> ReadShadow(const std::string& key) const;
  absl::StatusOr<AnswerSet> ReadAnswers(const std::string& key, int64_t* bytes) const;

  EvalOptions options_;
  std::vector<Setting> settings_;
  std::string model_;
  Task task_;
  absl::flat_hash_map<std::string, const Question*> question_of_;  // by AnswerId
  std::unique_ptr<EvalDirectory> directory_;
  size_t next_ = 0;
  int64_t num_answered_ = 0;
  std::optional<double> mean_full_length_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_EVAL_JOB_H_
