// cairn generate: one prompt, its answer streamed to standard output.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "kernels/core/status_macros.h"
#include "launcher/byte_size.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/one_prompt.h"
#include "launcher/progress.h"
#include "launcher/ranks.h"
#include "launcher/signals.h"
#include "launcher/subcommands.h"

namespace cairn {
namespace {

constexpr char kId[] = "generate";

std::string SummaryLine(const RequestOutput& output) {
  const Completion& answer = output.completions[0];
  const double prefill = output.first_token_seconds - output.arrival_seconds;
  const double decode = output.finish_seconds - output.first_token_seconds;
  const double later = static_cast<double>(answer.token_ids.size()) - 1;
  const CacheCounters& cache = output.cache;
  return absl::StrFormat(
      "%d prompt tokens, first token after %.2f s; %d generated tokens%s; finish_reason %s%s\n", output.prompt_tokens,
      prefill, answer.token_ids.size(), decode > 0 ? absl::StrFormat(", %.1f tokens/s", later / decode) : "",
      answer.finish_reason == FinishReason::kStop ? "stop" : "length",
      cache.compactions > 0 ? absl::StrFormat("; %d compactions, KV cache at most %s, uncompressed %s",
                                              cache.compactions, FormatBytes(static_cast<double>(cache.peak_kv_bytes)),
                                              FormatBytes(static_cast<double>(cache.full_cache_kv_bytes)))
                            : "");
}

// Until the answer is whole, or a signal. Errors of the request (the prompt is too long) are INVALID_ARGUMENT or
// OUT_OF_RANGE.
absl::StatusOr<int> Answer(Engine& engine, const SamplingParams& sampling, bool quiet) {
  CAIRN_ASSIGN_OR_RETURN(std::vector<int32_t> prompt_ids, PromptIdsFromFlags(engine.tokenizer()));
  CAIRN_RETURN_IF_ERROR(engine.Add({.id = kId, .prompt_ids = std::move(prompt_ids), .sampling = sampling}));
  size_t printed = 0;
  while (engine.HasWork() && StopSignal() == 0) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine.Step());
    for (const RequestOutput& output : outputs) {
      if (output.completions.empty()) continue;
      // While it grows, an output holds what is new; at the end, everything.
      const std::string& text = output.completions[0].text;
      const std::string fresh = output.finished ? text.substr(printed) : text;
      CAIRN_RETURN_IF_ERROR(WriteToStdout(fresh));
      printed += fresh.size();
      if (output.finished) CAIRN_RETURN_IF_ERROR(WriteToStdout("\n"));
      if (output.finished && !quiet) PrintToStderr(SummaryLine(output));
    }
  }
  if (StopSignal() == 0) return kExitOk;
  CAIRN_RETURN_IF_ERROR(WriteToStdout("\n"));
  return ExitCodeOfSignal(StopSignal());
}

}  // namespace

absl::StatusOr<int> Generate(World& world, const Subcommand& self) {
  CAIRN_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags());
  CAIRN_RETURN_IF_ERROR(CheckOnePromptFlags(options));
  CAIRN_ASSIGN_OR_RETURN(const SamplingParams sampling, SamplingParamsFromFlags());
  CAIRN_RETURN_IF_ERROR(CheckWorldSize(world, options.parallel, self.name));
  const bool quiet = absl::GetFlag(FLAGS_quiet);
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, StartEngine(world, options, quiet));
  if (!engine->is_leader()) return FollowLeader(world, *engine);
  NoteStopSignals(/*grace_seconds=*/0);
  const absl::StatusOr<int> code = Answer(*engine, sampling, quiet);
  if (!code.ok() && ExitCodeOf(code.status()) == kExitRankFailed) world.AbortAll(code.status());
  // Anything else (the prompt, standard output) is not the other ranks' business: they leave in order.
  DismissFollowers(world, *engine);
  if (!code.ok()) PrintError(code.status());
  return code.ok() ? *code : ExitCodeOf(code.status());
}

}  // namespace cairn
