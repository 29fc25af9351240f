#include "launcher/eval/shadow.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json MeansOf(const ShadowSums& sums) {
  return {{"count", sums.count}, {"mass_lost", sums.mean_mass_lost()}, {"output_error", sums.mean_output_error()}};
}

ShadowSums SumsOf(int64_t count, const json& mass_lost, const json& output_error) {
  if (count == 0) return {};
  const double n = static_cast<double>(count);
  return {count, mass_lost.get<double>() * n, output_error.get<double>() * n};
}

}  // namespace

void ShadowStatistics::Add(const Eviction& eviction) {
  CAIRN_CHECK(eviction.layer < layers() && eviction.kv_head < heads_, "layer ", eviction.layer, ", head ",
              eviction.kv_head);
  const ShadowSums loss = {1, eviction.mass_lost, eviction.output_error};
  cells_[static_cast<size_t>(eviction.layer)][static_cast<size_t>(eviction.kv_head)] += loss;
  Progress& progress = progress_[absl::StrCat(eviction.request_id, "/", eviction.index)];
  if (progress.length != 0 && progress.length != eviction.logical_length) ++progress.step;
  progress.length = eviction.logical_length;
  if (by_compaction_.size() <= progress.step) by_compaction_.resize(progress.step + 1);
  by_compaction_[progress.step] += {loss, static_cast<double>(eviction.logical_length)};
}

void ShadowStatistics::Merge(const ShadowStatistics& other) {
  if (other.empty()) return;
  if (empty()) {
    heads_ = other.heads_;
    cells_.assign(other.cells_.size(), std::vector<ShadowSums>(static_cast<size_t>(heads_)));
  }
  CAIRN_CHECK(layers() == other.layers() && heads_ == other.heads_, "of another model");
  for (size_t layer = 0; layer < cells_.size(); ++layer) {
    for (size_t head = 0; head < cells_[layer].size(); ++head) cells_[layer][head] += other.cells_[layer][head];
  }
  by_compaction_.resize(std::max(by_compaction_.size(), other.by_compaction_.size()));
  for (size_t step = 0; step < other.by_compaction_.size(); ++step) by_compaction_[step] += other.by_compaction_[step];
}

ordered_json ShadowStatistics::ToJson() const {
  ordered_json counts = ordered_json::array(), mass = ordered_json::array(), error = ordered_json::array();
  for (const std::vector<ShadowSums>& layer : cells_) {
    ordered_json &count_row = counts.emplace_back(ordered_json::array()),
                 &mass_row = mass.emplace_back(ordered_json::array()),
                 &error_row = error.emplace_back(ordered_json::array());
    for (const ShadowSums& cell : layer) {
      count_row.push_back(cell.count);
      mass_row.push_back(cell.count > 0 ? ordered_json(cell.mean_mass_lost()) : ordered_json());
      error_row.push_back(cell.count > 0 ? ordered_json(cell.mean_output_error()) : ordered_json());
    }
  }
  ordered_json steps = ordered_json::array();
  for (const Step& step : by_compaction_) {
    ordered_json& entry = steps.emplace_back(MeansOf(step.sums));
    entry["tokens"] = step.sums.count > 0 ? step.tokens / static_cast<double>(step.sums.count) : 0.0;
  }
  return {{"layers", layers()},
          {"heads", heads_},
          {"compactions", std::move(counts)},
          {"mass_lost", std::move(mass)},
          {"output_error", std::move(error)},
          {"by_compaction", std::move(steps)}};
}

absl::StatusOr<ShadowStatistics> ShadowStatistics::FromJson(const json& json) {
  try {
    ShadowStatistics statistics(json.at("layers").get<int64_t>(), json.at("heads").get<int64_t>());
    for (size_t layer = 0; layer < statistics.cells_.size(); ++layer) {
      for (size_t head = 0; head < statistics.cells_[layer].size(); ++head) {
        statistics.cells_[layer][head] =
            SumsOf(json.at("compactions").at(layer).at(head).get<int64_t>(), json.at("mass_lost").at(layer).at(head),
                   json.at("output_error").at(layer).at(head));
      }
    }
    for (const auto& entry : json.at("by_compaction")) {
      const int64_t count = entry.at("count").get<int64_t>();
      statistics.by_compaction_.push_back({SumsOf(count, entry.at("mass_lost"), entry.at("output_error")),
                                           entry.at("tokens").get<double>() * static_cast<double>(count)});
    }
    return statistics;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a shadow's figures: ", error.what()));
  }
}

absl::StatusOr<std::vector<RequestOutput>> ShadowEngine::Step() {
  absl::StatusOr<std::vector<RequestOutput>> outputs = RealBatchEngine::Step();
  for (const Eviction& eviction : engine_.TakeEvictions()) statistics_.Add(eviction);
  return outputs;
}

}  // namespace cairn
