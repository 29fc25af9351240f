#include "launcher/eval/eval_job.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/prompt_builder.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

constexpr char kRequests[] = "requests.jsonl", kShadow[] = "answers/shadow-";

}  // namespace

absl::StatusOr<std::unique_ptr<EvalJob>> EvalJob::Create(const EvalOptions& options, const EngineOptions& engine,
                                                         const Sweep& sweep) {
  std::unique_ptr<EvalJob> job(new EvalJob(options, sweep));
  job->model_ = engine.model;
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<PromptBuilder> prompts,
                         PromptBuilder::Create(options, engine.tokenizer.empty() ? engine.model : engine.tokenizer));
  TaskOptions task_options = options.task;
  task_options.model = engine.model;
  task_options.seed = engine.seed;
  // Tasks that are made to a length have no template of their own beside {prompt}.
  const std::string counted_template = options.prompt_template.empty() ? "{prompt}" : options.prompt_template;
  task_options.count_tokens = [&](const std::string& prompt) {
    return prompts->CountTokens(counted_template, prompt, prompts->uses_chat(/*task_is_for_chat=*/true));
  };
  CAIRN_ASSIGN_OR_RETURN(job->task_, ReadTask(task_options));
  Task& task = job->task_;
  task.chat = prompts->uses_chat(task.chat);
  if (!options.prompt_template.empty()) task.prompt_template = options.prompt_template;
  for (const Question& question : task.questions) {
    for (const int64_t seed : options.seeds) job->question_of_[AnswerId(question, seed)] = &question;
  }
  CAIRN_ASSIGN_OR_RETURN(job->directory_, EvalDirectory::Open(options.output_dir, job->Manifest(engine), options.resume,
                                                              options.overwrite));
  CAIRN_RETURN_IF_ERROR(job->WriteRequests(*prompts));
  return job;
}

// All that an answer depends on, beside the question, the seed and the setting.
nlohmann::ordered_json EvalJob::Manifest(const EngineOptions& engine) const {
  const SamplingParams& sampling = options_.sampling;
  const CompressionConfig& base = engine.compression;
  nlohmann::ordered_json manifest = {
      {"cairn_eval", 1},
      {"max_model_len", engine.max_model_len},
      {"task", task_.name},
      {"source", task_.source},
      {"source_hash", absl::StrFormat("%016x", task_.source_hash)},
      {"prompt_template", task_.prompt_template},
      {"chat", task_.chat},
      {"system", options_.system},
      {"enable_thinking", options_.enable_thinking},
      {"max_tokens", sampling.max_tokens.has_value() ? nlohmann::ordered_json(*sampling.max_tokens)
                                                     : nlohmann::ordered_json("the task's")},
      {"min_tokens", sampling.min_tokens},
      {"temperature", sampling.temperature},
      {"top_p", sampling.top_p},
      {"top_k", sampling.top_k},
      {"min_p", sampling.min_p},
      {"repetition_penalty", sampling.repetition_penalty},
      {"presence_penalty", sampling.presence_penalty},
      {"frequency_penalty", sampling.frequency_penalty},
      {"stop", sampling.stop},
      {"ignore_eos", sampling.ignore_eos},
      {"shadow_full", options_.shadow_full},
      {"kv_threshold", base.similarity_threshold},
      {"kv_layer_weights", base.layer_weights},
      {"kv_pooling", base.pooling},
      {"kv_group_reduce", base.group_reduce},
      {"kv_variant", base.variant},
      {"kv_sinks", base.num_sinks},
      {"kv_gamma", base.gamma},
      {"kv_gkv_redundancy", base.gkv_redundancy},
      {"kv_prefill", base.prefill},
      {"kv_decode", base.decode},
      {"kv_bounded_prefill", base.bounded_prefill}};
  if (!base.head_weights.empty()) manifest["kv_head_weights"] = base.head_weights;
  for (const auto& [name, value] : options_.model_flags) manifest[name] = value;
  return manifest;
}

absl::Status EvalJob::WriteRequests(const PromptBuilder& prompts) const {
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<LineFile> file,
                         LineFile::Open(directory_->PathOf(kRequests), "--output-dir", /*overwrite=*/true, -1));
  CAIRN_RETURN_IF_ERROR(file->Begin());
  // A seed after the other, so that a run that is cut short has whole passes.
  for (const int64_t seed : options_.seeds) {
    for (const Question& question : task_.questions) {
      CAIRN_RETURN_IF_ERROR(file->Write(prompts.RequestLine(task_, question, seed)));
    }
  }
  return file->Close();
}

int64_t EvalJob::num_answers() const { return static_cast<int64_t>(settings_.size() * question_of_.size()); }

int64_t EvalJob::kv_cache_bytes() const {
  const std::vector<EvalSession>& sessions = directory_->sessions();
  return sessions.empty() ? 0 : sessions[0].kv_cache_bytes;
}

// Of the questions of this run; others in the file belong to a longer one.
absl::StatusOr<AnswerSet> EvalJob::ReadAnswers(const std::string& key, int64_t* bytes) const {
  CAIRN_ASSIGN_OR_RETURN(const EvalDirectory::Answers answers, directory_->ReadAnswers(key));
  AnswerSet set;
  int64_t line = 0;
  for (const nlohmann::json& record : answers.records) {
    ++line;
    const nlohmann::json id = record.value("custom_id", nlohmann::json());
    const auto question = id.is_string() ? question_of_.find(id.get<std::string>()) : question_of_.end();
    if (question == question_of_.end()) continue;
    absl::StatusOr<GradedAnswer> graded = GradeRecord(record, *question->second);
    if (!graded.ok()) {
      return WithExitCode(absl::InvalidArgumentError(absl::StrCat(directory_->PathOf("answers/"), key, ".jsonl:", line,
                                                                  ": ", graded.status().message())),
                          kExitBadInput);
    }
    set[question->first] = *std::move(graded);
  }
  if (bytes != nullptr) *bytes = answers.bytes;
  return set;
}

absl::StatusOr<CompressionConfig> EvalJob::ConfigOf(size_t setting) {
  if (settings_[setting].budget_share.has_value() && !mean_full_length_.has_value()) {
    CAIRN_ASSIGN_OR_RETURN(const AnswerSet full, ReadAnswers(SettingKey(CompressionConfig()), nullptr));
    mean_full_length_ = MeanLength(full);
  }
  return Resolve(settings_[setting], mean_full_length_.value_or(0));
}

absl::StatusOr<std::optional<EvalJob::Run>> EvalJob::Next() {
  for (; next_ < settings_.size(); ++next_) {
    Run run;
    run.setting = next_;
    CAIRN_ASSIGN_OR_RETURN(run.config, ConfigOf(next_));
    const std::string key = SettingKey(run.config);
    int64_t bytes = 0;
    CAIRN_ASSIGN_OR_RETURN(const AnswerSet answers, ReadAnswers(key, &bytes));
    // A record of an earlier run and an answer just given count alike.
    num_answered_ = static_cast<int64_t>(next_ * question_of_.size() + answers.size());
    if (answers.size() == question_of_.size()) continue;
    for (const auto& [id, answer] : answers) run.answered.insert(id);
    run.label = absl::StrCat(next_ + 1, "/", settings_.size(), " ", key);
    CAIRN_ASSIGN_OR_RETURN(run.requests, LineReader::Open(directory_->PathOf(kRequests)));
    CAIRN_ASSIGN_OR_RETURN(run.answers, directory_->OpenAnswers(key, bytes));
    return std::optional<Run>(std::move(run));
  }
  return std::nullopt;
}

absl::Status EvalJob::Finish(const Run& run, const EvalSession& session) {
  EvalSession named = session;
  named.setting = SettingKey(run.config);
  return directory_->AddSession(named);
}

absl::StatusOr<ShadowStatistics> EvalJob::ReadShadow(const std::string& key) const {
  const std::string name = absl::StrCat(kShadow, key, ".json");
  CAIRN_ASSIGN_OR_RETURN(const std::optional<nlohmann::json> json, directory_->ReadJson(name));
  if (!json.has_value()) return ShadowStatistics();
  absl::StatusOr<ShadowStatistics> statistics = ShadowStatistics::FromJson(*json);
  if (statistics.ok()) return statistics;
  return WithExitCode(
      absl::InvalidArgumentError(absl::StrCat(directory_->PathOf(name), ": ", statistics.status().message())),
      kExitBadInput);
}

absl::Status EvalJob::AddShadow(const Run& run, const ShadowStatistics& lost) {
  const std::string key = SettingKey(run.config);
  CAIRN_ASSIGN_OR_RETURN(ShadowStatistics all, ReadShadow(key));
  all.Merge(lost);
  return directory_->WriteJson(absl::StrCat(kShadow, key, ".json"), all.ToJson());
}

absl::StatusOr<EvalReport> EvalJob::Report() {
  EvalReport report = {.task = task_.name,
                       .source = task_.source,
                       .model = model_,
                       .num_questions = static_cast<int64_t>(task_.questions.size()),
                       .seeds = options_.seeds};
  std::optional<AnswerSet> full;
  absl::flat_hash_set<std::string> reported;
  for (size_t i = 0; i < settings_.size(); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const CompressionConfig config, ConfigOf(i));
    const std::string key = SettingKey(config);
    if (!reported.insert(key).second) continue;  // two percentages of a short answer
    CAIRN_ASSIGN_OR_RETURN(AnswerSet answers, ReadAnswers(key, nullptr));
    if (!config.enabled()) {
      full = answers;
      if (const double mean = MeanLength(answers); mean > 0) mean_full_length_ = mean;
    }
    report.settings.push_back(Summarize(config, task_, options_.seeds, answers, full.has_value() ? &*full : nullptr,
                                        mean_full_length_, directory_->sessions()));
    CAIRN_ASSIGN_OR_RETURN(ShadowStatistics shadow, ReadShadow(key));
    if (!shadow.empty()) report.shadows.emplace_back(key, std::move(shadow));
  }
  report.mean_full_length = mean_full_length_;
  report.oracle = task_.oracle;
  return report;
}

}  // namespace cairn
