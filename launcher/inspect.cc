// cairn inspect: one prompt, and which of its tokens and of its answer's each layer and KV head kept.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "engine/cache/footprint.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/result_writer.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/inspect/inspect_report.h"
#include "launcher/inspect/page.h"
#include "launcher/one_prompt.h"
#include "launcher/progress.h"
#include "launcher/ranks.h"
#include "launcher/signals.h"
#include "launcher/subcommands.h"

namespace cairn {
namespace {

constexpr char kId[] = "generate";  // keys the random numbers: the answer is that of `cairn generate`

constexpr double kProgressInterval = 10;  // seconds

struct InspectFiles {
  std::unique_ptr<LineFile> json, html;  // none where the flag is not given
};

absl::Status CheckInspectFlags(const EngineOptions& options) {
  CAIRN_RETURN_IF_ERROR(CheckOnePromptFlags(options));
  if (!options.compression.enabled()) {
    return UsageError(
        "--kv-compression=none keeps every token, so there is nothing to inspect: give --kv-compression rkv (or "
        "another method) and --kv-budget");
  }
  if (absl::GetFlag(FLAGS_output_json).empty() && absl::GetFlag(FLAGS_output_html).empty()) {
    return UsageError("give --output-html FILE (a page to look at), --output-json FILE (for programs), or both");
  }
  return absl::OkStatus();
}

// What can be wrong with the files, before a model is loaded.
absl::Status OpenFiles(InspectFiles& files) {
  const auto open = [](const std::string& path, const char* flag, std::unique_ptr<LineFile>& file) {
    if (path.empty()) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(file, LineFile::Open(path, flag, /*overwrite=*/true, /*input_fd=*/-1));
    return absl::OkStatus();
  };
  CAIRN_RETURN_IF_ERROR(open(absl::GetFlag(FLAGS_output_json), "--output-json", files.json));
  return open(absl::GetFlag(FLAGS_output_html), "--output-html", files.html);
}

// The answer and everything that was kept on its way, until it is whole or a signal comes: then what there is. Errors
// of the request (the prompt is too long) are INVALID_ARGUMENT or OUT_OF_RANGE.
absl::StatusOr<InspectReport> Trace(Engine& engine, const SamplingParams& sampling, bool quiet, std::string& text) {
  const ModelConfig& model = engine.model_config();
  CAIRN_ASSIGN_OR_RETURN(std::vector<int32_t> ids, PromptIdsFromFlags(engine.tokenizer()));
  InspectReport report = {.model = engine.options().model,
                          .compression = engine.options().compression,
                          .prompt_tokens = static_cast<int64_t>(ids.size()),
                          .finish_reason = "interrupted",
                          .history = KeepHistory(model.num_layers, model.num_kv_heads)};
  report.budgets =
      *Footprint(report.compression, model.num_layers, model.num_kv_heads).BudgetsFor(report.prompt_tokens);
  CAIRN_RETURN_IF_ERROR(engine.Add({.id = kId, .prompt_ids = ids, .sampling = sampling}));
  std::vector<int32_t> answer;
  const double begin = Now();
  double last_shown = begin;
  while (engine.HasWork() && StopSignal() == 0) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine.Step());
    for (const RequestOutput& output : outputs) {
      if (output.completions.empty()) continue;
      const Completion& completion = output.completions[0];
      if (output.finished) {
        answer.clear();
        text.clear();
        report.finish_reason = completion.finish_reason == FinishReason::kStop ? "stop" : "length";
        report.counters = output.cache;
      }
      answer.insert(answer.end(), completion.token_ids.begin(), completion.token_ids.end());
      text += completion.text;
    }
    for (const Eviction& eviction : engine.TakeEvictions()) CAIRN_RETURN_IF_ERROR(report.history.Add(eviction));
    if (quiet || Now() - last_shown < kProgressInterval) continue;
    last_shown = Now();
    PrintToStderr(absl::StrFormat("cairn: %d tokens and %d compactions after %s\n", answer.size(),
                                  report.history.num_events(), FormatDuration(last_shown - begin)));
  }
  ids.insert(ids.end(), answer.begin(), answer.end());
  report.tokens = TokenTexts(*engine.tokenizer(), ids);
  report.token_ids = std::move(ids);
  return report;
}

std::string SummaryLine(const InspectReport& report) {
  const int64_t fed = report.final_length();
  const double held = report.MeanHeld();
  return absl::StrFormat(
      "%d prompt tokens, %d generated tokens, finish_reason %s; %d compactions, at the end a KV head holds %.1f of %d "
      "tokens (%.1f %%)\n",
      report.prompt_tokens, report.answer_tokens(), report.finish_reason, report.history.num_events(), held, fed,
      fed > 0 ? 100 * held / static_cast<double>(fed) : 0.0);
}

// The answer, the files and the summary.
absl::StatusOr<int> Deliver(InspectReport& report, const std::string& text, InspectFiles& files, const Subcommand& self,
                            bool quiet) {
  const int code = StopSignal() == 0 ? kExitOk : ExitCodeOfSignal(StopSignal());
  if (report.answer_tokens() == 0) return code;  // a signal came before the first token: there is nothing to show
  report.settings = Settings(self);
  CAIRN_RETURN_IF_ERROR(WriteToStdout(text + "\n"));
  if (files.json != nullptr) CAIRN_RETURN_IF_ERROR(files.json->WriteAll(ReportJson(report)));
  if (files.html != nullptr) CAIRN_RETURN_IF_ERROR(files.html->WriteAll(BuildPage(PageData(report))));
  if (!quiet) PrintToStderr(SummaryLine(report));
  return code;
}

}  // namespace

absl::StatusOr<int> Inspect(World& world, const Subcommand& self) {
  CAIRN_ASSIGN_OR_RETURN(EngineOptions options, EngineOptionsFromFlags());
  CAIRN_RETURN_IF_ERROR(CheckInspectFlags(options));
  CAIRN_ASSIGN_OR_RETURN(const SamplingParams sampling, SamplingParamsFromFlags());
  CAIRN_RETURN_IF_ERROR(CheckWorldSize(world, options.parallel, self.name));
  InspectFiles files;
  CAIRN_RETURN_IF_ERROR(world.Agree(world.is_root() ? OpenFiles(files) : absl::OkStatus()));
  options.record_evictions = true;
  const bool quiet = absl::GetFlag(FLAGS_quiet);
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, StartEngine(world, std::move(options), quiet));
  if (!engine->is_leader()) return FollowLeader(world, *engine);
  NoteStopSignals(/*grace_seconds=*/0);
  std::string text;
  absl::StatusOr<InspectReport> report = Trace(*engine, sampling, quiet, text);
  if (!report.ok() && ExitCodeOf(report.status()) == kExitRankFailed) world.AbortAll(report.status());
  // Anything else (the prompt, a file) is not the other ranks' business: they leave in order.
  DismissFollowers(world, *engine);
  const absl::StatusOr<int> code =
      report.ok() ? Deliver(*report, text, files, self, quiet) : absl::StatusOr<int>(report.status());
  if (!code.ok()) PrintError(code.status());
  return code.ok() ? *code : ExitCodeOf(code.status());
}

}  // namespace cairn
