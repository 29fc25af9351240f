// cairn run-batch: a file of requests to a file of results.
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/reasoning_parser.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/batch_root.h"
#include "launcher/batch/summary.h"
#include "launcher/command_line.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/progress.h"
#include "launcher/ranks.h"
#include "launcher/signals.h"
#include "launcher/subcommands.h"

namespace cairn {
namespace {

struct BatchFiles {
  std::unique_ptr<LineReader> input;
  std::unique_ptr<LineFile> results, errors, summary;  // the last two: none where the flag is not given
  std::optional<int64_t> num_requests;
};

std::string PathOf(const std::string& flag_value, const char* standard_stream) {
  return flag_value == "-" ? standard_stream : flag_value;
}

// Everything that can be wrong with the files, before a model is loaded.
absl::Status OpenFiles(BatchFiles& files) {
  const std::string input = PathOf(absl::GetFlag(FLAGS_input_file), "/dev/stdin");
  const std::string output = PathOf(absl::GetFlag(FLAGS_output_file), "/dev/stdout");
  const std::string errors = absl::GetFlag(FLAGS_errors_file), summary = absl::GetFlag(FLAGS_output_json);
  const bool overwrite = absl::GetFlag(FLAGS_overwrite);
  if (input.empty()) return UsageError("--input-file (-i) is missing: the file of requests");
  if (output.empty()) return UsageError("--output-file (-o) is missing: where the results go");
  CAIRN_ASSIGN_OR_RETURN(files.input, LineReader::Open(input));
  const int input_fd = files.input->fd();
  CAIRN_ASSIGN_OR_RETURN(files.results, LineFile::Open(output, "--output-file", overwrite, input_fd));
  if (!errors.empty()) {
    CAIRN_ASSIGN_OR_RETURN(files.errors, LineFile::Open(errors, "--errors-file", overwrite, input_fd));
  }
  if (!summary.empty()) {
    CAIRN_ASSIGN_OR_RETURN(files.summary, LineFile::Open(summary, "--output-json", /*overwrite=*/true, input_fd));
  }
  files.num_requests = CountLines(input);
  if (files.num_requests == 0) {
    return WithExitCode(absl::InvalidArgumentError(absl::StrCat("input file ", input, ": it holds no requests")),
                        kExitBadInput);
  }
  return absl::OkStatus();
}

// Makes the ids of this job's responses differ from those of another.
std::string RandomRunId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

ProgressState StateOf(const BatchTotals& totals, const BatchFiles& files) {
  return {.done = totals.done(),
          .failed = totals.failed,
          .total = files.num_requests,
          .generated_tokens = totals.generated_tokens(),
          .finished_tokens = totals.counts.completion_tokens,
          .running = totals.running()};
}

absl::Status Report(const BatchSummary& summary, BatchFiles& files, const Subcommand& self, bool quiet) {
  if (!quiet) PrintToStderr(SummaryText(summary));
  if (files.summary == nullptr) return absl::OkStatus();
  return files.summary->WriteAll(SummaryJson(summary, Settings(self)).dump(2));
}

// Rank 0's run: everything but starting and ending the engine.
absl::StatusOr<BatchTotals> RunRoot(World& world, Engine& engine, ReplicaWorker& worker, const RecordBuilder& records,
                                    BatchFiles& files, bool quiet) {
  LineFile& errors = files.errors != nullptr ? *files.errors : *files.results;
  CAIRN_RETURN_IF_ERROR(files.results->Begin());
  if (files.errors != nullptr) CAIRN_RETURN_IF_ERROR(files.errors->Begin());
  const EngineOptions& options = engine.options();
  Progress progress(Progress::StyleForStderr(quiet), PrintToStderr);
  BatchRoot root({.reader = *files.input,
                  .results = *files.results,
                  .errors = errors,
                  .records = records,
                  .worker = worker,
                  .world = world.channel(),
                  .other_leaders = OtherLeaders(options.parallel),
                  .replica_capacity = ReplicaCapacity(engine),
                  .timeout_seconds = options.distributed_timeout_seconds,
                  .should_stop = [] { return StopSignal() != 0; },
                  .on_progress = [&](const BatchTotals& totals) { progress.Update(StateOf(totals, files), Now()); }});
  progress.Update(StateOf({}, files), Now());
  CAIRN_RETURN_IF_ERROR(root.Run());
  progress.Finish(StateOf(root.totals(), files), Now());
  CAIRN_RETURN_IF_ERROR(files.results->Close());
  if (files.errors != nullptr) CAIRN_RETURN_IF_ERROR(files.errors->Close());
  return root.totals();
}

int LeadRoot(World& world, Engine& engine, ReplicaWorker& worker, const RecordBuilder& records, BatchFiles& files,
             const Subcommand& self, double load_seconds) {
  NoteStopSignals(/*grace_seconds=*/0);
  const bool quiet = absl::GetFlag(FLAGS_quiet);
  BatchSummary summary{.totals = {},
                       .load_seconds = load_seconds,
                       .elapsed_seconds = 0,
                       .kv_cache_tokens = engine.kv_capacity().tokens,
                       .kv_cache_dtype = engine.options().kv_cache_dtype};
  const double begin = Now();
  absl::StatusOr<BatchTotals> totals = RunRoot(world, engine, worker, records, files, quiet);
  if (!totals.ok()) world.AbortAll(totals.status());
  summary.elapsed_seconds = Now() - begin;
  summary.totals = *std::move(totals);
  DismissFollowers(world, engine);
  if (const absl::Status reported = Report(summary, files, self, quiet); !reported.ok()) world.AbortAll(reported);
  if (summary.totals.interrupted) return ExitCodeOfSignal(StopSignal());
  return summary.totals.failed > 0 ? kExitSomeFailed : kExitOk;
}

}  // namespace

absl::StatusOr<int> RunBatch(World& world, const Subcommand& self) {
  CAIRN_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags());
  const absl::StatusOr<ReasoningFormat> reasoning = ParseReasoningFormat(absl::GetFlag(FLAGS_reasoning_parser));
  if (!reasoning.ok()) return WithExitCode(reasoning.status(), kExitUsage);
  CAIRN_RETURN_IF_ERROR(CheckWorldSize(world, options.parallel, self.name));
  BatchFiles files;
  CAIRN_RETURN_IF_ERROR(world.Agree(world.is_root() ? OpenFiles(files) : absl::OkStatus()));
  const double begin = Now();
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, StartEngine(world, options, absl::GetFlag(FLAGS_quiet)));
  if (!engine->is_leader()) return FollowLeader(world, *engine);
  RealBatchEngine batch_engine(*engine);
  const RecordBuilder records(engine->tokenizer(), options.model, *reasoning, RandomRunId());
  ReplicaWorker worker(batch_engine, engine->tokenizer(), records);
  if (!world.is_root()) return LeadReplica(world, *engine, worker);
  return LeadRoot(world, *engine, worker, records, files, self, Now() - begin);
}

}  // namespace cairn
