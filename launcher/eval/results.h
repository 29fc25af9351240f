// From answers to figures: what each setting came to, and against the full cache.
#ifndef CAIRN_LAUNCHER_EVAL_RESULTS_H_
#define CAIRN_LAUNCHER_EVAL_RESULTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "compression/compression_config.h"
#include "launcher/eval/eval_directory.h"
#include "launcher/eval/statistics.h"
#include "launcher/eval/task.h"
#include "nlohmann/json.hpp"

namespace cairn {

// "gsm8k-12/seed-0": the custom_id of a question's answer with a seed.
std::string AnswerId(const Question& question, int64_t seed);

// One answer, graded.
struct GradedAnswer {
  bool answered = false;  // false: the request failed, `found` has the error
  bool right = false;
  std::string found;
  int64_t prompt_tokens = 0, answer_tokens = 0;
  bool cut = false;  // by the length limit
  int64_t peak_kv_bytes = 0, full_kv_bytes = 0;
  int64_t compactions = 0;
};

// A record of run-batch. INVALID_ARGUMENT where it is none.
absl::StatusOr<GradedAnswer> GradeRecord(const nlohmann::json& record, const Question& question);

// By AnswerId.
using AnswerSet = absl::flat_hash_map<std::string, GradedAnswer>;

// Of prompt and answer in tokens; 0 where no request had an answer.
double MeanLength(const AnswerSet& answers);

struct Share {
  int64_t right = 0, total = 0;
  Interval interval;  // 95 %
  double value() const { return total > 0 ? static_cast<double>(right) / static_cast<double>(total) : 0; }
};

// Against the full cache, over the answers that both have.
struct Comparison {
  std::vector<std::string> lost, won;  // answers right with the full cache alone, or with this setting alone
  double p_value = 1;                  // McNemar, exact, over answers
  std::optional<double> share;         // of the full cache's accuracy; none where that is 0
  std::optional<Interval> share_interval;
};

struct SettingResult {
  CompressionConfig config;
  std::string key;
  Share accuracy;
  std::map<std::string, Share> groups;  // Wilson, whatever the seeds
  int64_t failed = 0;                   // requests without an answer; they count as wrong
  int64_t cut = 0;
  double mean_answer_tokens = 0;
  double mean_kv_bytes = 0, peak_kv_bytes = 0;  // over answers, of each at its largest
  double kept_kv_share = 1;                     // bytes against those of the same answers uncompressed
  double mean_compactions = 0;
  std::optional<double> kept_share;           // budget / mean full length
  double tokens_per_second = 0, seconds = 0;  // 0: not measured
  int64_t peak_running = 0, preemptions = 0, kv_cache_bytes = 0;
  std::optional<Comparison> against_full;
};

SettingResult Summarize(const CompressionConfig& config, const Task& task, const std::vector<int64_t>& seeds,
                        const AnswerSet& answers, const AnswerSet* full, std::optional<double> mean_full_length,
                        const std::vector<EvalSession>& sessions);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_RESULTS_H_
