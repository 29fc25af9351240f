#include "launcher/eval/report.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launcher/byte_size.h"
#include "launcher/eval/sweep.h"
#include "launcher/progress.h"
#include "launcher/topology.h"

namespace cairn {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMostGroups = 30;  // in the table; the JSON has all

std::string Percent(double share) { return absl::StrFormat("%.1f", 100 * share); }

std::string PercentWithInterval(double share, const std::optional<Interval>& interval) {
  if (!interval.has_value()) return Percent(share);
  return absl::StrFormat("%.1f (%.1f to %.1f)", 100 * share, 100 * interval->low, 100 * interval->high);
}

std::vector<CompressionConfig> ConfigsOf(const EvalReport& report) {
  std::vector<CompressionConfig> configs;
  for (const SettingResult& setting : report.settings) configs.push_back(setting.config);
  return configs;
}

std::vector<std::string> Row(const SettingResult& setting, const std::vector<CompressionConfig>& all, bool compared,
                             bool shares) {
  const bool full = !setting.config.enabled();
  std::vector<std::string> row = {SeriesLabel(setting.config, all), full ? "-" : absl::StrCat(setting.config.budget)};
  if (shares) row.push_back(Percent(*setting.kept_share));
  row.push_back(PercentWithInterval(setting.accuracy.value(), setting.accuracy.interval));
  if (compared && !setting.against_full.has_value()) row.insert(row.end(), {"100", "-", "-", "-"});
  if (setting.against_full.has_value()) {
    const Comparison& comparison = *setting.against_full;
    row.push_back(comparison.share.has_value() ? PercentWithInterval(*comparison.share, comparison.share_interval)
                                               : "-");
    row.push_back(absl::StrCat(comparison.lost.size()));
    row.push_back(absl::StrCat(comparison.won.size()));
    row.push_back(absl::StrFormat("%.2g", comparison.p_value));
  }
  row.push_back(FormatBytes(setting.mean_kv_bytes));
  row.push_back(FormatBytes(setting.peak_kv_bytes));
  row.push_back(setting.seconds > 0 ? absl::StrFormat("%.1f", setting.tokens_per_second) : "-");
  row.push_back(setting.peak_running > 0 ? absl::StrCat(setting.peak_running) : "-");
  row.push_back(absl::StrFormat("%.0f", setting.mean_answer_tokens));
  const double total = static_cast<double>(std::max<int64_t>(1, setting.accuracy.total));
  row.push_back(Percent(static_cast<double>(setting.cut) / total));
  return row;
}

// Settings down, groups across.
std::string GroupTable(const EvalReport& report, const std::vector<CompressionConfig>& all) {
  std::set<std::string> names;
  for (const SettingResult& setting : report.settings) {
    for (const auto& [name, share] : setting.groups) names.insert(name);
  }
  if (names.size() < 2 || names.size() > kMostGroups) return "";
  // In the order of the first number in them, so that 500 tokens come before 1000.
  std::vector<std::string> groups(names.begin(), names.end());
  const auto number = [](const std::string& name) {
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < name.size(); ++i) {
      const bool digit = name[i] >= '0' && name[i] <= '9';
      if (digit && (i == 0 || name[i - 1] < '0' || name[i - 1] > '9')) numbers.push_back(0);
      if (digit && numbers.back() < INT32_MAX) numbers.back() = numbers.back() * 10 + (name[i] - '0');
    }
    return numbers;
  };
  std::stable_sort(groups.begin(), groups.end(),
                   [&](const std::string& a, const std::string& b) { return number(a) < number(b); });
  std::vector<std::vector<std::string>> rows = {{"accuracy %"}};
  for (const SettingResult& setting : report.settings) {
    rows[0].push_back(setting.config.enabled()
                          ? absl::StrCat(SeriesLabel(setting.config, all), " ", setting.config.budget)
                          : "full cache");
  }
  for (const std::string& name : groups) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(name.empty() ? "(no group)" : name);
    for (const SettingResult& setting : report.settings) {
      const auto found = setting.groups.find(name);
      row.push_back(found == setting.groups.end() ? "-" : Percent(found->second.value()));
    }
  }
  return absl::StrCat("\n", FormatTable(rows));
}

// The loss of each setting, and where it is largest.
std::string ShadowLines(const EvalReport& report) {
  std::string text;
  for (const auto& [key, shadow] : report.shadows) {
    ShadowSums all;
    int64_t worst_layer = 0, worst_head = 0;
    for (int64_t layer = 0; layer < shadow.layers(); ++layer) {
      for (int64_t head = 0; head < shadow.heads(); ++head) {
        const ShadowSums& cell = shadow.at(layer, head);
        all.count += cell.count;
        all.mass_lost += cell.mass_lost;
        all.output_error += cell.output_error;
        if (cell.mean_output_error() > shadow.at(worst_layer, worst_head).mean_output_error()) {
          worst_layer = layer;
          worst_head = head;
        }
      }
    }
    absl::StrAppendFormat(
        &text,
        "%s: at a compaction a head has lost %.2f %% of the attention mass, its output is off by %.2f "
        "%% (most in layer %d, head %d: %.2f %%)\n",
        key, 100 * all.mean_mass_lost(), 100 * all.mean_output_error(), worst_layer, worst_head,
        100 * shadow.at(worst_layer, worst_head).mean_output_error());
  }
  return text.empty() ? "" : absl::StrCat("\n", text);
}

ordered_json JsonOf(const Interval& interval) { return {interval.low, interval.high}; }

ordered_json JsonOf(const Share& share) {
  return {{"right", share.right},
          {"answers", share.total},
          {"accuracy", share.value()},
          {"interval", JsonOf(share.interval)}};
}

ordered_json JsonOf(const Comparison& comparison) {
  return {{"share_of_full_accuracy", comparison.share.has_value() ? ordered_json(*comparison.share) : ordered_json()},
          {"interval", comparison.share_interval.has_value() ? JsonOf(*comparison.share_interval) : ordered_json()},
          {"p_value", comparison.p_value},
          {"lost", comparison.lost},
          {"won", comparison.won}};
}

ordered_json JsonOf(const CompressionConfig& config) {
  if (!config.enabled()) return {{"algorithm", "none"}};
  return {{"algorithm", config.algorithm}, {"budget", config.budget},     {"buffer", config.buffer},
          {"window", config.window},       {"schedule", config.schedule}, {"beta", config.beta},
          {"scope", config.scope},         {"lambda", config.mix_lambda}, {"recent_ratio", config.recent_ratio}};
}

}  // namespace

std::string EvalReportTable(const EvalReport& report) {
  const std::vector<CompressionConfig> all = ConfigsOf(report);
  bool compared = false, shares = report.mean_full_length.has_value();
  int64_t failed = 0;
  for (const SettingResult& setting : report.settings) {
    compared |= setting.against_full.has_value();
    failed += setting.failed;
  }
  std::vector<std::vector<std::string>> rows(1);
  std::vector<std::string>& head = rows[0];
  head = {"setting", "budget"};
  if (shares) head.push_back("kept %");
  head.push_back("accuracy % (95 %)");
  if (compared) head.insert(head.end(), {"of full % (95 %)", "lost", "won", "p"});
  head.insert(head.end(), {"KV mean", "KV peak", "tokens/s", "at once", "length", "cut %"});
  for (const SettingResult& setting : report.settings) rows.push_back(Row(setting, all, compared, shares));
  std::string text = absl::StrCat(report.task, ": ", report.num_questions, " questions of ", report.source,
                                  report.seeds.size() > 1 ? absl::StrCat(", ", report.seeds.size(), " seeds") : "",
                                  "; model ", report.model, "\n", FormatTable(rows));
  if (report.mean_full_length.has_value()) {
    absl::StrAppendFormat(&text, "kept: budget / mean length of prompt + answer with the full cache, %.0f tokens\n",
                          *report.mean_full_length);
  }
  if (failed > 0) {
    absl::StrAppend(&text, failed, " requests had no answer and count as wrong: answers/*.jsonl has the errors\n");
  }
  return absl::StrCat(text, GroupTable(report, all), ShadowLines(report));
}

ordered_json EvalReportJson(const EvalReport& report) {
  const std::vector<CompressionConfig> all = ConfigsOf(report);
  ordered_json json = {{"cairn_eval", 1},
                       {"task", report.task},
                       {"source", report.source},
                       {"model", report.model},
                       {"questions", report.num_questions},
                       {"seeds", report.seeds},
                       {"mean_full_length",
                        report.mean_full_length.has_value() ? ordered_json(*report.mean_full_length) : ordered_json()}};
  if (!report.oracle.empty()) {
    ordered_json& oracle = json["oracle"] = ordered_json::array();
    for (const OraclePoint& point : report.oracle) {
      oracle.push_back(
          {{"kept_share", point.kept_share}, {"accuracy", point.accuracy}, {"interval", JsonOf(point.interval)}});
    }
  }
  ordered_json& settings = json["results"] = ordered_json::array();
  for (const SettingResult& setting : report.settings) {
    ordered_json& entry = settings.emplace_back();
    entry = {{"setting", setting.key},
             {"series", SeriesLabel(setting.config, all)},
             {"compression", JsonOf(setting.config)},
             {"kept_share", setting.kept_share.has_value() ? ordered_json(*setting.kept_share) : ordered_json()}};
    entry.update(JsonOf(setting.accuracy));
    entry["against_full_cache"] = setting.against_full.has_value() ? JsonOf(*setting.against_full) : ordered_json();
    entry["failed"] = setting.failed;
    entry["cut_by_length"] = setting.cut;
    entry["mean_answer_tokens"] = setting.mean_answer_tokens;
    entry["mean_kv_bytes"] = setting.mean_kv_bytes;
    entry["peak_kv_bytes"] = setting.peak_kv_bytes;
    entry["kv_bytes_share_of_full"] = setting.kept_kv_share;
    entry["mean_compactions"] = setting.mean_compactions;
    entry["tokens_per_second"] = setting.seconds > 0 ? ordered_json(setting.tokens_per_second) : ordered_json();
    entry["seconds"] = setting.seconds;
    entry["peak_running"] = setting.peak_running;
    entry["preemptions"] = setting.preemptions;
    entry["kv_cache_bytes_per_rank"] = setting.kv_cache_bytes;
    for (const auto& [key, shadow] : report.shadows) {
      if (key == setting.key) entry["shadow"] = shadow.ToJson();
    }
    ordered_json& groups = entry["groups"] = ordered_json::object();
    for (const auto& [name, share] : setting.groups) {
      if (setting.groups.size() > 1 || !name.empty()) groups[name] = JsonOf(share);
    }
  }
  ordered_json& flags = json["settings"] = ordered_json::object();
  for (const auto& [name, value] : report.flags) flags[name] = value;
  return json;
}

}  // namespace cairn
