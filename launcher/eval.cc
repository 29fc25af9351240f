// cairn eval: the accuracy of answers under KV compression, against the full cache, in the same memory.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "engine/scheduler/wire.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/batch_root.h"
#include "launcher/eval/eval_flags.h"
#include "launcher/eval/eval_job.h"
#include "launcher/eval/plot.h"
#include "launcher/eval/report.h"
#include "launcher/eval/shadow.h"
#include "launcher/eval/sweep.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/one_prompt.h"
#include "launcher/progress.h"
#include "launcher/ranks.h"
#include "launcher/signals.h"
#include "launcher/subcommands.h"

namespace cairn {
namespace {

// What rank 0 tells the others before each setting. All have read the same flags and have made the same sweep of them.
struct Turn {
  int64_t setting = -1;        // of the sweep; -1: over
  int32_t budget = 0;          // of a percentage rank 0 alone knows what it comes to
  int64_t kv_cache_bytes = 0;  // 0: as the flags say

  bool over() const { return setting < 0; }
};

// Rank 0's word on every rank; its error is everybody's.
absl::StatusOr<Turn> Broadcast(World& world, const absl::StatusOr<Turn>& mine) {
  CAIRN_RETURN_IF_ERROR(world.Agree(mine.status()));
  WireWriter out;
  out.Put(*mine);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, world.channel().AllGather(out.Take()));
  return WireReader(all[0]).Get<Turn>();
}

int64_t LargestKvCache(const Engine& engine) {
  int64_t bytes = 0;
  for (const RankInfo& rank : engine.ranks()) bytes = std::max(bytes, rank.kv_blocks * rank.kv_block_bytes);
  return bytes;
}

// Rank 0 over all settings.
class Root {
 public:
  // `output_json`: the file of that flag, null without it.
  Root(World& world, EvalJob& job, std::unique_ptr<LineFile> output_json, bool quiet)
      : world_(world),
        job_(job),
        output_json_(std::move(output_json)),
        quiet_(quiet),
        progress_(Progress::StyleForStderr(quiet), PrintToStderr) {}

  absl::StatusOr<Turn> NextTurn() {
    if (StopSignal() == 0) {
      CAIRN_ASSIGN_OR_RETURN(run_, job_.Next());
    } else {
      run_.reset();
    }
    if (!run_.has_value()) return Turn();
    return Turn{.setting = static_cast<int64_t>(run_->setting),
                .budget = run_->config.budget,
                .kv_cache_bytes = job_.kv_cache_bytes()};
  }

  // The setting at hand, on this rank's engine and the other replicas'.
  absl::Status Answer(Engine& engine) {
    RealBatchEngine plain(engine);
    ShadowStatistics lost(engine.model_config().num_layers, engine.model_config().num_kv_heads);
    ShadowEngine shadow(engine, lost);
    const bool has_shadow = engine.options().shadow_full;
    const RecordBuilder records(engine.tokenizer(), engine.options().model, ReasoningFormat::kNone, "eval");
    ReplicaWorker worker(has_shadow ? shadow : plain, engine.tokenizer(), records);
    const int64_t answered_before = job_.num_answered();
    const auto state = [&](const BatchTotals& totals) {
      return ProgressState{.done = answered_before + totals.done(),
                           .failed = failed_ + totals.failed,
                           .total = job_.num_answers(),
                           .generated_tokens = generated_ + totals.generated_tokens(),
                           .finished_tokens = generated_ + totals.counts.completion_tokens,
                           .running = totals.running(),
                           .done_before = done_before_,
                           .label = run_->label};
    };
    if (!last_state_.has_value()) done_before_ = answered_before;
    const double begin = Now();
    BatchRoot root({.reader = *run_->requests,
                    .results = *run_->answers,
                    .errors = *run_->answers,
                    .records = records,
                    .worker = worker,
                    .world = world_.channel(),
                    .other_leaders = OtherLeaders(engine.options().parallel),
                    .replica_capacity = ReplicaCapacity(engine),
                    .timeout_seconds = engine.options().distributed_timeout_seconds,
                    .should_stop = [] { return StopSignal() != 0; },
                    .on_progress = [&](const BatchTotals& totals) { progress_.Update(state(totals), Now()); },
                    .answered = &run_->answered});
    progress_.Update(state({}), Now());
    CAIRN_RETURN_IF_ERROR(root.Run());
    CAIRN_RETURN_IF_ERROR(run_->answers->Close());
    if (has_shadow) CAIRN_RETURN_IF_ERROR(job_.AddShadow(*run_, lost));
    const BatchTotals& totals = root.totals();
    last_state_ = state(totals);
    generated_ += totals.generated_tokens();
    failed_ += totals.failed;
    EvalSession session = {.seconds = Now() - begin,
                           .generated_tokens = totals.generated_tokens(),
                           .kv_cache_bytes = LargestKvCache(engine)};
    for (const ReplicaStatus& replica : totals.replicas) {
      session.peak_running += replica.stats.peak_running;
      session.preemptions += replica.stats.preemptions;
    }
    return job_.Finish(*run_, session);
  }

  absl::StatusOr<int> Report(const Subcommand& self) {
    if (last_state_.has_value()) progress_.Finish(*last_state_, Now());
    if (StopSignal() != 0) {
      if (!quiet_) PrintToStderr("cairn: interrupted; the same command with --resume goes on\n");
      return ExitCodeOfSignal(StopSignal());
    }
    CAIRN_ASSIGN_OR_RETURN(EvalReport report, job_.Report());
    report.flags = Settings(self);
    const nlohmann::ordered_json json = EvalReportJson(report);
    CAIRN_RETURN_IF_ERROR(job_.directory().WriteJson("report.json", json));
    CAIRN_RETURN_IF_ERROR(job_.directory().WriteFile("accuracy.svg", AccuracyPlot(report)));
    if (!report.shadows.empty()) {
      CAIRN_RETURN_IF_ERROR(job_.directory().WriteFile("shadow.svg", ShadowPlot(report.model, report.shadows)));
    }
    if (output_json_ != nullptr) CAIRN_RETURN_IF_ERROR(output_json_->WriteAll(IndentedJson(json)));
    CAIRN_RETURN_IF_ERROR(WriteToStdout(EvalReportTable(report)));
    const bool failed = std::any_of(report.settings.begin(), report.settings.end(),
                                    [](const SettingResult& setting) { return setting.failed > 0; });
    return failed ? kExitSomeFailed : kExitOk;
  }

 private:
  World& world_;
  EvalJob& job_;
  std::unique_ptr<LineFile> output_json_;
  bool quiet_;
  Progress progress_;
  std::optional<EvalJob::Run> run_;
  std::optional<ProgressState> last_state_;
  int64_t generated_ = 0, failed_ = 0;
  int64_t done_before_ = 0;  // answers that an earlier run has left
};

// Rank 0's work before there is an engine.
absl::Status Prepare(const EvalOptions& eval, const EngineOptions& options, const Sweep& sweep,
                     std::unique_ptr<EvalJob>& job, std::unique_ptr<LineFile>& output_json) {
  if (const std::string path = absl::GetFlag(FLAGS_output_json); !path.empty()) {
    CAIRN_ASSIGN_OR_RETURN(output_json, LineFile::Open(path, "--output-json", /*overwrite=*/true, -1));
  }
  CAIRN_ASSIGN_OR_RETURN(job, EvalJob::Create(eval, options, sweep));
  return absl::OkStatus();
}

// One setting on this rank.
void TakeTurn(World& world, Engine& engine, Root* root) {
  if (!engine.is_leader()) {
    FollowLeader(world, engine);
  } else if (root == nullptr) {
    RealBatchEngine batch_engine(engine);
    const RecordBuilder records(engine.tokenizer(), engine.options().model, ReasoningFormat::kNone, "eval");
    ReplicaWorker worker(batch_engine, engine.tokenizer(), records);
    LeadReplica(world, engine, worker);
  } else {
    NoteStopSignals(/*grace_seconds=*/0);
    if (const absl::Status answered = root->Answer(engine); !answered.ok()) world.AbortAll(answered);
    DismissFollowers(world, engine);
  }
}

}  // namespace

absl::StatusOr<int> Eval(World& world, const Subcommand& self) {
  CAIRN_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags());
  CAIRN_ASSIGN_OR_RETURN(const EvalOptions eval, EvalOptionsFromFlags());
  CAIRN_ASSIGN_OR_RETURN(const Sweep sweep, MakeSweep(eval.sweep, options.compression, eval.full_cache));
  if (eval.shadow_full && options.parallel.dp > 1) {
    return UsageError(absl::StrCat("--shadow-full with --data-parallel-size=", options.parallel.dp,
                                   ": it gathers from one replica; use -tp and -pp"));
  }
  CAIRN_RETURN_IF_ERROR(CheckWorldSize(world, options.parallel, self.name));
  const bool quiet = absl::GetFlag(FLAGS_quiet);
  std::unique_ptr<EvalJob> job;
  std::unique_ptr<LineFile> output_json;
  CAIRN_RETURN_IF_ERROR(
      world.Agree(world.is_root() ? Prepare(eval, options, sweep, job, output_json) : absl::OkStatus()));
  std::optional<Root> root;
  if (world.is_root()) {
    root.emplace(world, *job, std::move(output_json), quiet);
    for (const std::string& note : sweep.notes) {
      if (!quiet) PrintToStderr(absl::StrCat("cairn: ", note, "\n"));
    }
  }
  // The first setting's table of ranks is every setting's.
  for (bool first = true;; first = false) {
    absl::StatusOr<Turn> mine = Turn();
    if (root.has_value()) mine = root->NextTurn();
    CAIRN_ASSIGN_OR_RETURN(const Turn turn, Broadcast(world, mine));
    if (turn.over()) break;
    EngineOptions turn_options = options;
    CompressionConfig& config = turn_options.compression = sweep.settings[static_cast<size_t>(turn.setting)].config;
    config.budget = turn.budget;
    turn_options.shadow_full = turn_options.record_evictions = eval.shadow_full && config.enabled();
    if (options.kv_cache_memory_bytes == 0) turn_options.kv_cache_memory_bytes = turn.kv_cache_bytes;
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                           StartEngine(world, std::move(turn_options), quiet || !first));
    TakeTurn(world, *engine, root.has_value() ? &*root : nullptr);
  }
  if (!root.has_value()) return kExitOk;
  return root->Report(self);
}

}  // namespace cairn
