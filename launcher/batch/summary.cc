#include "launcher/batch/summary.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launcher/byte_size.h"
#include "launcher/progress.h"

namespace cairn {
namespace {

// Sums over replicas; each runs its own batch.
struct Engines {
  int64_t steps = 0, peak_running = 0, preemptions = 0;
  double peak_kv_use = 0;  // of the fullest replica
  CacheCounters cache;
  double busy_seconds = 0, compression_seconds = 0;

  double compression_share() const { return busy_seconds > 0 ? compression_seconds / busy_seconds : 0; }
};

Engines EnginesOf(const BatchTotals& totals) {
  Engines engines;
  for (const ReplicaStatus& replica : totals.replicas) {
    engines.steps += replica.stats.steps;
    engines.peak_running += replica.stats.peak_running;
    engines.preemptions += replica.stats.preemptions;
    engines.cache += replica.stats.cache;
    engines.busy_seconds += replica.stats.busy_seconds;
    engines.compression_seconds += replica.stats.compression_seconds;
    if (replica.stats.kv_blocks_total > 0) {
      engines.peak_kv_use = std::max(engines.peak_kv_use, static_cast<double>(replica.stats.kv_blocks_peak) /
                                                              static_cast<double>(replica.stats.kv_blocks_total));
    }
  }
  return engines;
}

double PerSecond(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

double CutShare(const RecordCounts& counts) {
  return counts.answers > 0 ? static_cast<double>(counts.answers_cut) / static_cast<double>(counts.answers) : 0;
}

}  // namespace

std::string SummaryText(const BatchSummary& summary) {
  const BatchTotals& totals = summary.totals;
  const RecordCounts& counts = totals.counts;
  const Engines engines = EnginesOf(totals);
  const double seconds = summary.elapsed_seconds;
  std::string text = absl::StrFormat(
      "%s: %d requests ok, %d failed in %s (model ready after %s)\n"
      "  tokens       %d prompt, %d generated%s\n"
      "  throughput   %.1f generated tokens/s, %.1f tokens/s in all, %.2f requests/s\n"
      "  running      at most %d at once, %d steps, %d preemptions\n"
      "  KV cache     at most %.1f %% of %d tokens%s in use\n",
      totals.interrupted ? "Interrupted" : "Done", totals.ok, totals.failed, FormatDuration(seconds),
      FormatDuration(summary.load_seconds), counts.prompt_tokens, counts.completion_tokens,
      counts.reasoning_tokens > 0 ? absl::StrCat(" (", counts.reasoning_tokens, " of them reasoning)") : "",
      PerSecond(static_cast<double>(counts.completion_tokens), seconds),
      PerSecond(static_cast<double>(counts.prompt_tokens + counts.completion_tokens), seconds),
      PerSecond(static_cast<double>(totals.ok), seconds), engines.peak_running, engines.steps, engines.preemptions,
      100 * engines.peak_kv_use, summary.kv_cache_tokens,
      summary.kv_cache_dtype == "auto" ? "" : absl::StrCat(" in ", summary.kv_cache_dtype));
  if (engines.cache.compactions > 0) {
    const double answers = static_cast<double>(std::max<int64_t>(1, counts.answers));
    absl::StrAppend(
        &text, absl::StrFormat(
                   "  compression  %d compactions took %s (%.1f %% of the time), evicted %d tokens, freed %d blocks\n"
                   "               an answer held at most %s on average, the full cache %s: %.1f times as much\n",
                   engines.cache.compactions, FormatDuration(engines.compression_seconds),
                   100 * engines.compression_share(), engines.cache.evicted_tokens, engines.cache.blocks_freed,
                   FormatBytes(static_cast<double>(engines.cache.peak_kv_bytes) / answers),
                   FormatBytes(static_cast<double>(engines.cache.full_cache_kv_bytes) / answers),
                   engines.cache.compression_ratio()));
  }
  if (counts.answers_cut > 0) {
    absl::StrAppend(&text, absl::StrFormat("  cut short    %d of %d answers (%.0f %%) ended at their token limit "
                                           "(finish_reason \"length\")\n",
                                           counts.answers_cut, counts.answers, 100 * CutShare(counts)));
  }
  return text;
}

nlohmann::ordered_json SummaryJson(const BatchSummary& summary,
                                   const std::vector<std::pair<std::string, std::string>>& settings) {
  const BatchTotals& totals = summary.totals;
  const RecordCounts& counts = totals.counts;
  const Engines engines = EnginesOf(totals);
  const double seconds = summary.elapsed_seconds;
  nlohmann::ordered_json json = {
      {"elapsed_time", seconds},
      {"load_time", summary.load_seconds},
      {"num_requests", totals.done()},
      {"completed", totals.ok},
      {"failed", totals.failed},
      {"interrupted", totals.interrupted},
      {"prompt_tokens", counts.prompt_tokens},
      {"generated_tokens", counts.completion_tokens},
      {"reasoning_tokens", counts.reasoning_tokens},
      {"total_num_tokens", counts.prompt_tokens + counts.completion_tokens},
      {"requests_per_second", PerSecond(static_cast<double>(totals.ok), seconds)},
      {"tokens_per_second", PerSecond(static_cast<double>(counts.prompt_tokens + counts.completion_tokens), seconds)},
      {"output_tokens_per_second", PerSecond(static_cast<double>(counts.completion_tokens), seconds)},
      {"steps", engines.steps},
      {"peak_running", engines.peak_running},
      {"preemptions", engines.preemptions},
      {"kv_cache_tokens", summary.kv_cache_tokens},
      {"peak_kv_use", engines.peak_kv_use},
      {"compactions", engines.cache.compactions},
      {"evicted_tokens", engines.cache.evicted_tokens},
      {"blocks_freed", engines.cache.blocks_freed},
      {"sum_peak_kv_bytes", engines.cache.peak_kv_bytes},
      {"sum_full_cache_kv_bytes", engines.cache.full_cache_kv_bytes},
      {"compression_ratio", engines.cache.compression_ratio()},
      {"compression_seconds", engines.compression_seconds},
      {"compression_share", engines.compression_share()},
      {"answers", counts.answers},
      {"answers_cut", counts.answers_cut},
      {"share_finish_reason_length", CutShare(counts)}};
  nlohmann::ordered_json& flags = json["settings"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : settings) flags[name] = value;
  return json;
}

}  // namespace cairn
