#include "launcher/eval/results.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "launcher/eval/sweep.h"

namespace cairn {
namespace {

using nlohmann::json;

// The paired answers of one question.
struct QuestionPair {
  int64_t reference = 0, other = 0, answers = 0;
};

Comparison Compare(const Task& task, const std::vector<int64_t>& seeds, const AnswerSet& answers,
                   const AnswerSet& full) {
  Comparison comparison;
  std::vector<PairedShares> shares;
  int64_t right_full = 0, right = 0;
  for (const Question& question : task.questions) {
    QuestionPair pair;
    for (const int64_t seed : seeds) {
      const std::string id = AnswerId(question, seed);
      const auto mine = answers.find(id), reference = full.find(id);
      if (mine == answers.end() || reference == full.end()) continue;
      ++pair.answers;
      pair.other += mine->second.right;
      pair.reference += reference->second.right;
      if (reference->second.right && !mine->second.right) comparison.lost.push_back(id);
      if (!reference->second.right && mine->second.right) comparison.won.push_back(id);
    }
    if (pair.answers == 0) continue;
    right_full += pair.reference;
    right += pair.other;
    const double n = static_cast<double>(pair.answers);
    shares.push_back({static_cast<double>(pair.reference) / n, static_cast<double>(pair.other) / n});
  }
  comparison.p_value =
      McNemarExact(static_cast<int64_t>(comparison.lost.size()), static_cast<int64_t>(comparison.won.size()));
  if (right_full > 0) {
    comparison.share = static_cast<double>(right) / static_cast<double>(right_full);
    comparison.share_interval = Bootstrap(shares).share;
  }
  return comparison;
}

// Wilson where answers are independent; several answers to a question are not.
Interval AccuracyInterval(const Task& task, const std::vector<int64_t>& seeds, const AnswerSet& answers,
                          const Share& accuracy) {
  if (seeds.size() == 1) return WilsonInterval(accuracy.right, accuracy.total);
  std::vector<PairedShares> shares;
  for (const Question& question : task.questions) {
    int64_t right = 0, total = 0;
    for (const int64_t seed : seeds) {
      const auto found = answers.find(AnswerId(question, seed));
      if (found == answers.end()) continue;
      ++total;
      right += found->second.right;
    }
    if (total > 0) shares.push_back({0, static_cast<double>(right) / static_cast<double>(total)});
  }
  return Bootstrap(shares).accuracy;
}

void AddSpeed(const std::vector<EvalSession>& sessions, SettingResult& result) {
  int64_t tokens = 0;
  for (const EvalSession& session : sessions) {
    if (session.setting != result.key) continue;
    tokens += session.generated_tokens;
    result.seconds += session.seconds;
    result.peak_running = std::max(result.peak_running, session.peak_running);
    result.preemptions += session.preemptions;
    result.kv_cache_bytes = std::max(result.kv_cache_bytes, session.kv_cache_bytes);
  }
  if (result.seconds > 0) result.tokens_per_second = static_cast<double>(tokens) / result.seconds;
}

}  // namespace

std::string AnswerId(const Question& question, int64_t seed) { return absl::StrCat(question.id, "/seed-", seed); }

absl::StatusOr<GradedAnswer> GradeRecord(const json& record, const Question& question) {
  try {
    GradedAnswer answer;
    if (record.at("response").is_null()) {
      answer.found = record.at("error").at("message").get<std::string>();
      return answer;
    }
    const json& body = record.at("response").at("body");
    const json& choice = body.at("choices").at(0);
    std::string text;
    if (choice.contains("text")) {
      text = choice.at("text").get<std::string>();
    } else if (const json& content = choice.at("message").at("content"); content.is_string()) {
      text = content.get<std::string>();
    }
    Grade grade = GradeAnswer(question.expected, text);
    answer = {.answered = true,
              .right = grade.right,
              .found = std::move(grade.found),
              .prompt_tokens = body.at("usage").at("prompt_tokens").get<int64_t>(),
              .answer_tokens = body.at("usage").at("completion_tokens").get<int64_t>(),
              .cut = choice.at("finish_reason") == "length",
              .peak_kv_bytes = body.at("cairn").at("peak_kv_bytes").get<int64_t>(),
              .full_kv_bytes = body.at("cairn").at("full_cache_kv_bytes").get<int64_t>(),
              .compactions = body.at("cairn").at("compactions").get<int64_t>()};
    return answer;
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a record of run-batch: ", error.what()));
  }
}

double MeanLength(const AnswerSet& answers) {
  int64_t tokens = 0, answered = 0;
  for (const auto& [id, answer] : answers) {
    if (!answer.answered) continue;
    tokens += answer.prompt_tokens + answer.answer_tokens;
    ++answered;
  }
  return answered > 0 ? static_cast<double>(tokens) / static_cast<double>(answered) : 0;
}

SettingResult Summarize(const CompressionConfig& config, const Task& task, const std::vector<int64_t>& seeds,
                        const AnswerSet& answers, const AnswerSet* full, std::optional<double> mean_full_length,
                        const std::vector<EvalSession>& sessions) {
  SettingResult result;
  result.config = config;
  result.key = SettingKey(config);
  int64_t answered = 0;
  double full_bytes = 0;
  for (const Question& question : task.questions) {
    for (const int64_t seed : seeds) {
      const auto found = answers.find(AnswerId(question, seed));
      if (found == answers.end()) continue;
      const GradedAnswer& answer = found->second;
      Share& group = result.groups[question.group];
      for (Share* share : {&result.accuracy, &group}) {
        ++share->total;
        share->right += answer.right;
      }
      if (!answer.answered) {
        ++result.failed;
        continue;
      }
      ++answered;
      result.cut += answer.cut;
      result.mean_answer_tokens += static_cast<double>(answer.answer_tokens);
      result.mean_kv_bytes += static_cast<double>(answer.peak_kv_bytes);
      result.peak_kv_bytes = std::max(result.peak_kv_bytes, static_cast<double>(answer.peak_kv_bytes));
      full_bytes += static_cast<double>(answer.full_kv_bytes);
      result.mean_compactions += static_cast<double>(answer.compactions);
    }
  }
  if (full_bytes > 0) result.kept_kv_share = result.mean_kv_bytes / full_bytes;
  if (answered > 0) {
    for (double* mean : {&result.mean_answer_tokens, &result.mean_kv_bytes, &result.mean_compactions}) {
      *mean /= static_cast<double>(answered);
    }
  }
  result.accuracy.interval = AccuracyInterval(task, seeds, answers, result.accuracy);
  for (auto& [name, group] : result.groups) group.interval = WilsonInterval(group.right, group.total);
  if (mean_full_length.has_value() && *mean_full_length > 0) {
    result.kept_share = config.enabled() ? std::min(1.0, static_cast<double>(config.budget) / *mean_full_length) : 1.0;
  }
  AddSpeed(sessions, result);
  if (full != nullptr && config.enabled()) result.against_full = Compare(task, seeds, answers, *full);
  return result;
}

}  // namespace cairn
