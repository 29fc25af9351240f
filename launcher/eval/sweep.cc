#include "launcher/eval/sweep.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/core/status_macros.h"
#include "launcher/command_line.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

constexpr size_t kMostSettings = 10'000;

absl::Status Expected(const char* what) { return absl::InvalidArgumentError(absl::StrCat("expected ", what)); }

absl::Status SetInteger(const std::string& item, int32_t& value) {
  return absl::SimpleAtoi(item, &value) ? absl::OkStatus() : Expected("a whole number");
}

absl::Status SetNumber(const std::string& item, double& value) {
  return absl::SimpleAtod(item, &value) && std::isfinite(value) ? absl::OkStatus() : Expected("a number");
}

absl::Status SetBudget(const std::string& item, Setting& setting) {
  if (item.empty() || item.back() != '%') {
    return SetInteger(item, setting.config.budget).ok() ? absl::OkStatus()
                                                        : Expected("a whole number of slots, or a percentage");
  }
  double percent = 0;
  if (!absl::SimpleAtod(item.substr(0, item.size() - 1), &percent) || !(percent > 0 && percent <= 100)) {
    return Expected("a percentage above 0 %, at most 100 %");
  }
  setting.budget_share = percent / 100;
  return absl::OkStatus();
}

absl::Status SetItem(const std::string& flag, const std::string& item, Setting& setting) {
  CompressionConfig& config = setting.config;
  if (flag == "kv_budget") return SetBudget(item, setting);
  if (flag == "kv_buffer") return SetInteger(item, config.buffer);
  if (flag == "kv_window") return SetInteger(item, config.window);
  if (flag == "kv_recent_ratio") return SetNumber(item, config.recent_ratio);
  if (flag == "kv_beta") return SetNumber(item, config.beta);
  if (flag == "kv_kernel") return SetInteger(item, config.kernel_size);
  if (flag == "kv_lambda") return SetNumber(item, config.mix_lambda);
  if (item.empty()) return Expected("a name");
  (flag == "kv_compression" ? config.algorithm : flag == "kv_schedule" ? config.schedule : config.scope) = item;
  return absl::OkStatus();
}

bool IsRkv(const CompressionConfig& config) { return config.algorithm == "rkv" || config.algorithm == "rkv-history"; }

bool ReadsLambda(const CompressionConfig& config) {
  return IsRkv(config) || (config.algorithm == "gkv" && config.gkv_redundancy);
}

bool ReadsKernel(const CompressionConfig& config) { return IsRkv(config) || config.algorithm == "snapkv"; }

// Two settings that do the same become equal.
void MakeCanonical(Setting& setting) {
  CompressionConfig& config = setting.config;
  const CompressionConfig standard;
  if (!config.enabled()) setting = Setting();
  if (!ReadsLambda(config)) config.mix_lambda = standard.mix_lambda;
  if (!ReadsKernel(config)) config.kernel_size = standard.kernel_size;
  if (config.schedule != "pyramid") config.beta = standard.beta;
  // The first and the last tokens are the same in every head and layer, whatever share is promised to the last.
  if (config.algorithm == "streamingllm") {
    config.scope = standard.scope;
    config.recent_ratio = standard.recent_ratio;
  }
}

// A budget that no other check minds, where the real one is not known yet.
CompressionConfig Checkable(const Setting& setting) {
  CompressionConfig config = setting.config;
  if (setting.budget_share.has_value()) config.budget = std::max(1 << 20, config.window + 1);
  return config;
}

bool IsLeftOut(const CompressionConfig& config) { return config.scope == "sequence" && config.schedule != "uniform"; }

std::string KeyWithShare(const Setting& setting) {
  return absl::StrCat(SettingKey(setting.config), setting.budget_share.has_value() ? "%" : "",
                      setting.budget_share.value_or(0));
}

struct List {
  std::string flag;
  std::vector<std::string> items;
};

absl::StatusOr<std::vector<List>> SplitLists(const std::vector<std::pair<std::string, std::string>>& lists) {
  std::vector<List> result;
  size_t combinations = 1;
  for (const auto& [flag, text] : lists) {
    List& list = result.emplace_back();
    list.flag = flag;
    const std::vector<std::string> items = absl::StrSplit(text, ',');
    for (const std::string& item : items) {
      list.items.emplace_back(absl::StripAsciiWhitespace(item));
      Setting scratch;
      if (const absl::Status read = SetItem(flag, list.items.back(), scratch); !read.ok()) {
        return UsageError(
            absl::StrCat("--", FlagSpelling(flag), "=", text, ": '", list.items.back(), "': ", read.message()));
      }
    }
    combinations *= list.items.size();
    if (combinations > kMostSettings) return UsageError("the --kv- lists make more than 10,000 settings");
  }
  return result;
}

}  // namespace

std::string SettingKey(const CompressionConfig& config) {
  if (!config.enabled()) return "full";
  return absl::StrCat(
      config.algorithm, "-b", config.budget, "-f", config.buffer, "-w", config.window, "-", config.schedule,
      config.schedule == "pyramid" ? absl::StrCat(config.beta) : "", "-", config.scope,
      ReadsLambda(config) ? absl::StrCat("-l", config.mix_lambda) : "",
      config.recent_ratio == CompressionConfig().recent_ratio ? "" : absl::StrCat("-r", config.recent_ratio),
      config.kernel_size == CompressionConfig().kernel_size ? "" : absl::StrCat("-k", config.kernel_size));
}

std::string SeriesLabel(const CompressionConfig& config, const std::vector<CompressionConfig>& all) {
  if (!config.enabled()) return "full cache";
  // Whether the compressed ones differ in this.
  const auto varies = [&](auto field) {
    for (const CompressionConfig& other : all) {
      if (other.enabled() && field(other) != field(config)) return true;
    }
    return false;
  };
  std::string label = config.algorithm;
  if (config.schedule != "uniform") absl::StrAppend(&label, " ", config.schedule);
  if (config.schedule == "pyramid") {
    bool several = false;
    for (const auto& other : all) several |= other.schedule == "pyramid" && other.beta != config.beta;
    if (several) absl::StrAppend(&label, " beta ", config.beta);
  }
  if (config.scope != "head") absl::StrAppend(&label, " per ", config.scope);
  if (varies([](const auto& c) { return c.buffer; })) absl::StrAppend(&label, " buffer ", config.buffer);
  if (varies([](const auto& c) { return c.window; })) absl::StrAppend(&label, " window ", config.window);
  if (varies([](const auto& c) { return c.recent_ratio; })) absl::StrAppend(&label, " recent ", config.recent_ratio);
  // The same, among those that read it.
  const auto varies_where = [&](auto reads, auto field) {
    return reads(config) && std::any_of(all.begin(), all.end(), [&](const CompressionConfig& other) {
             return reads(other) && field(other) != field(config);
           });
  };
  if (varies_where(ReadsLambda, [](const auto& c) { return c.mix_lambda; })) {
    absl::StrAppend(&label, " lambda ", config.mix_lambda);
  }
  if (varies_where(ReadsKernel, [](const auto& c) { return c.kernel_size; })) {
    absl::StrAppend(&label, " kernel ", config.kernel_size);
  }
  return label;
}

absl::StatusOr<Sweep> MakeSweep(const std::vector<std::pair<std::string, std::string>>& lists,
                                const CompressionConfig& base, bool full_cache) {
  CAIRN_ASSIGN_OR_RETURN(const std::vector<List> split, SplitLists(lists));
  Sweep sweep;
  if (full_cache) sweep.settings.emplace_back();
  absl::flat_hash_set<std::string> known;
  for (const Setting& setting : sweep.settings) known.insert(KeyWithShare(setting));
  std::vector<size_t> at(split.size(), 0);
  for (bool more = true; more;) {
    Setting setting;
    setting.config = base;
    for (size_t i = 0; i < split.size(); ++i) {
      CAIRN_RETURN_IF_ERROR(SetItem(split[i].flag, split[i].items[at[i]], setting));
    }
    // The last list runs fastest.
    more = false;
    for (size_t i = split.size(); i-- > 0 && !more;) {
      more = ++at[i] < split[i].items.size();
      if (!more) at[i] = 0;
    }
    MakeCanonical(setting);
    if (!known.insert(KeyWithShare(setting)).second) continue;
    if (IsLeftOut(setting.config) && split.size() > 1) {
      sweep.notes.push_back(absl::StrCat(SettingKey(setting.config),
                                         " is left out: one set for all layers (--kv-scope=sequence) has one size, ",
                                         setting.config.schedule, " has several"));
      continue;
    }
    if (const absl::Status valid = Checkable(setting).Validate(); !valid.ok()) return WithExitCode(valid, kExitUsage);
    if (setting.is_full_cache()) {
      sweep.settings.insert(sweep.settings.begin(), std::move(setting));
    } else {
      sweep.settings.push_back(std::move(setting));
    }
  }
  if (sweep.settings.empty()) {
    return UsageError(absl::StrCat("the --kv- flags leave no setting to evaluate",
                                   sweep.notes.empty() ? "" : absl::StrCat(": ", sweep.notes[0])));
  }
  const bool has_share = std::any_of(sweep.settings.begin(), sweep.settings.end(),
                                     [](const Setting& setting) { return setting.budget_share.has_value(); });
  if (has_share && !sweep.settings[0].is_full_cache()) {
    return UsageError(
        "--kv-budget as a percentage is of the mean length with the full cache, which --no-full-cache leaves out");
  }
  return sweep;
}

absl::StatusOr<CompressionConfig> Resolve(const Setting& setting, double mean_full_length) {
  CompressionConfig config = setting.config;
  if (!setting.budget_share.has_value()) return config;
  config.budget = static_cast<int32_t>(std::lround(*setting.budget_share * mean_full_length));
  if (config.budget <= config.window) {
    return UsageError(absl::StrCat("--kv-budget=", 100 * *setting.budget_share, "%: of the mean full length, ",
                                   std::lround(mean_full_length), " tokens, that is ", config.budget,
                                   " slots; it must be more than --kv-window=", config.window));
  }
  return config;
}

}  // namespace cairn
