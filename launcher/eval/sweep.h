// The settings of one evaluation: every combination of the lists that the --kv- flags give.
#ifndef CAIRN_LAUNCHER_EVAL_SWEEP_H_
#define CAIRN_LAUNCHER_EVAL_SWEEP_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "compression/compression_config.h"

namespace cairn {

struct Setting {
  CompressionConfig config;            // what a method does not read is at its default
  std::optional<double> budget_share;  // of the mean full length, until Resolve has made it config.budget

  bool is_full_cache() const { return !config.enabled(); }
};

// "full", "rkv-b128-f64-w8-pyramid20-head-l0.1": a file name, equal for equal settings. Budgets are resolved.
std::string SettingKey(const CompressionConfig& config);
// What differs between the lines of a plot: all but the budget. "rkv", "rkv pyramid", "rkv buffer 16": of two settings
// only what `all` do not share is named.
std::string SeriesLabel(const CompressionConfig& config, const std::vector<CompressionConfig>& all);

struct Sweep {
  std::vector<Setting> settings;   // the full cache first, where it is among them
  std::vector<std::string> notes;  // combinations that were left out, for stderr
};

// `lists`: flag ("kv_budget") and its comma list, for each flag that may be swept; what else the methods read comes
// from `base`. Exit code 64 names the flag and the item. Percentages as budgets need the full cache.
absl::StatusOr<Sweep> MakeSweep(const std::vector<std::pair<std::string, std::string>>& lists,
                                const CompressionConfig& base, bool full_cache);

// The setting whose budget is that share of `mean_full_length` tokens, checked (exit code 64).
absl::StatusOr<CompressionConfig> Resolve(const Setting& setting, double mean_full_length);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_SWEEP_H_
