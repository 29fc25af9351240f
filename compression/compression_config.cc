#include "compression/compression_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compression/scorer.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

template <typename T>
absl::Status Refuse(const char* flag, const T& value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat(flag, "=", value, ": must be ", allowed));
}

absl::Status CheckChoice(const char* flag, const std::string& value, std::initializer_list<const char*> choices) {
  std::string allowed = "one of";
  for (const char* choice : choices) {
    if (value == choice) return absl::OkStatus();
    absl::StrAppend(&allowed, allowed == "one of" ? " " : ", ", choice);
  }
  return Refuse(flag, value, allowed);
}

absl::Status CheckRange(const char* flag, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // refuses NaN
  return Refuse(flag, value, absl::StrCat("between ", low, " and ", high));
}

constexpr int32_t kMaxSlots = 1 << 28;

absl::Status CheckWeights(const char* flag, const std::vector<double>& weights) {
  double sum = 0;
  for (const double weight : weights) {
    CAIRN_RETURN_IF_ERROR(CheckRange(flag, weight, 0, 1e6));
    sum += weight;
  }
  if (weights.empty() || sum >= 1e-3) return absl::OkStatus();
  return Refuse(flag, absl::StrJoin(weights, ","), "more than 0 somewhere");
}

}  // namespace

KeepScope CompressionConfig::keep_scope() const {
  if (scope == "layer") return KeepScope::kLayer;
  if (scope == "sequence") return KeepScope::kSequence;
  CAIRN_CHECK(scope == "head", scope);
  return KeepScope::kHead;
}

int32_t CompressionConfig::RecentSlots(int32_t budget) const {
  return std::max(window, static_cast<int32_t>(recent_ratio * budget));
}

absl::Status CompressionConfig::Validate() const {
  if (enabled() && !IsAlgorithm(algorithm)) {
    return Refuse("--kv-compression", algorithm, absl::StrCat("one of none, ", AlgorithmNames()));
  }
  CAIRN_RETURN_IF_ERROR(CheckChoice("--kv-schedule", schedule, {"uniform", "pyramid", "weighted"}));
  CAIRN_RETURN_IF_ERROR(CheckChoice("--kv-scope", scope, {"head", "layer", "sequence"}));
  CAIRN_RETURN_IF_ERROR(CheckChoice("--kv-pooling", pooling, {"max", "avg"}));
  CAIRN_RETURN_IF_ERROR(CheckChoice("--kv-group-reduce", group_reduce, {"mean", "max", "sum"}));
  CAIRN_RETURN_IF_ERROR(CheckChoice("--kv-variant", variant, {"code", "paper"}));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-window", window, 1, 1024));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-budget", budget, 1, kMaxSlots));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-buffer", buffer, 1, kMaxSlots));
  if (budget <= window) {
    return Refuse("--kv-budget", budget, absl::StrCat("more than --kv-window=", window, ", which it includes"));
  }
  if (buffer < window) {
    return Refuse("--kv-buffer", buffer, absl::StrCat("at least --kv-window=", window));
  }
  if (kernel_size < 1 || kernel_size % 2 == 0) {
    return Refuse("--kv-kernel", kernel_size, "odd, so that it has a middle");
  }
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-beta", beta, 1, 1e6));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-lambda", mix_lambda, 0, 1));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-threshold", similarity_threshold, -1, 1));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-recent-ratio", recent_ratio, 0, 1));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-gamma", gamma, 0, 1));
  CAIRN_RETURN_IF_ERROR(CheckRange("--kv-sinks", num_sinks, 0, kMaxSlots));
  CAIRN_RETURN_IF_ERROR(CheckWeights("--kv-layer-weights", layer_weights));
  CAIRN_RETURN_IF_ERROR(CheckWeights("--kv-head-weights", head_weights));
  if (schedule == "weighted" && layer_weights.empty() == head_weights.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-schedule=weighted: needs --kv-layer-weights, a number for each layer, or --kv-head-weights, "
                     "one for each of its KV heads",
                     layer_weights.empty() ? "" : "; not both"));
  }
  if (scope != "head" && by_head()) {
    return Refuse("--kv-scope", scope, "head with --kv-head-weights: one set for all heads of a layer has one size");
  }
  if (scope == "sequence" && schedule != "uniform") {
    return Refuse("--kv-scope", scope,
                  absl::StrCat("head or layer with --kv-schedule=", schedule, ": one set for all layers has one size"));
  }
  if (!decode && !prefill) {
    return Refuse("--kv-prefill", "false", "true with --kv-decode=false: nothing would ever be compressed");
  }
  if (!decode && bounded_prefill) {
    return Refuse("--kv-bounded-prefill", "true", "false with --kv-decode=false, which compresses a prompt once");
  }
  if (!prefill && bounded_prefill) {
    return Refuse("--kv-bounded-prefill", "true", "false with --kv-prefill=false, which leaves the prompt whole");
  }
  return absl::OkStatus();
}

absl::Status CompressionConfig::ValidateFor(int64_t num_layers, int64_t num_kv_heads) const {
  if (schedule != "weighted") return absl::OkStatus();
  const int64_t heads = static_cast<int64_t>(head_weights.size());
  if (heads > 0) {
    if (heads == num_layers * num_kv_heads) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("--kv-head-weights: has ", heads, " numbers, and the model ",
                                                   num_layers, " layers of ", num_kv_heads, " KV heads"));
  }
  if (static_cast<int64_t>(layer_weights.size()) == num_layers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--kv-layer-weights: has ", layer_weights.size(),
                                                 " numbers, and the model ", num_layers, " layers"));
}

}  // namespace cairn
