// What compactions lose against the full cache (--shadow-full): gathered over an evaluation, by layer and KV head and
// by the compactions of an answer in their order.
#ifndef CAIRN_LAUNCHER_EVAL_SHADOW_H_
#define CAIRN_LAUNCHER_EVAL_SHADOW_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/eviction.h"
#include "launcher/batch/batch_engine.h"
#include "nlohmann/json.hpp"

namespace cairn {

// Sums over compactions of one KV head of one layer. The losses are those of engine/runner/shadow_cache.h.
struct ShadowSums {
  int64_t count = 0;
  double mass_lost = 0, output_error = 0;

  ShadowSums& operator+=(const ShadowSums& more) {
    count += more.count;
    mass_lost += more.mass_lost;
    output_error += more.output_error;
    return *this;
  }
  double mean_mass_lost() const { return count > 0 ? mass_lost / static_cast<double>(count) : 0; }
  double mean_output_error() const { return count > 0 ? output_error / static_cast<double>(count) : 0; }
};

class ShadowStatistics {
 public:
  ShadowStatistics() = default;
  ShadowStatistics(int64_t layers, int64_t heads)
      : heads_(heads), cells_(static_cast<size_t>(layers), std::vector<ShadowSums>(static_cast<size_t>(heads))) {}

  // Those of one answer come in the order of its compactions.
  void Add(const Eviction& eviction);
  // What an earlier run of the same setting has gathered.
  void Merge(const ShadowStatistics& other);

  bool empty() const { return by_compaction_.empty(); }
  int64_t layers() const { return static_cast<int64_t>(cells_.size()); }
  int64_t heads() const { return heads_; }
  const ShadowSums& at(int64_t layer, int64_t head) const {
    return cells_[static_cast<size_t>(layer)][static_cast<size_t>(head)];
  }

  // {"layers", "heads", "compactions": per (layer, head), "mass_lost", "output_error": means [L][H], null where no
  // compaction was; "by_compaction": [{"count", "tokens", "mass_lost", "output_error"}]}
  nlohmann::ordered_json ToJson() const;
  // Of ToJson. INVALID_ARGUMENT where it is not.
  static absl::StatusOr<ShadowStatistics> FromJson(const nlohmann::json& json);

 private:
  struct Step {  // the k-th compaction of an answer, over answers, layers and heads
    ShadowSums sums;
    double tokens = 0;  // sum of the lengths at which it came

    Step& operator+=(const Step& more) {
      sums += more.sums;
      tokens += more.tokens;
      return *this;
    }
  };
  struct Progress {
    int64_t length = 0;
    size_t step = 0;
  };

  int64_t heads_ = 0;
  std::vector<std::vector<ShadowSums>> cells_;
  std::vector<Step> by_compaction_;
  absl::flat_hash_map<std::string, Progress> progress_;  // by request and answer
};

// Gathers on the way what a step's compactions have lost.
class ShadowEngine : public RealBatchEngine {
 public:
  ShadowEngine(Engine& engine, ShadowStatistics& statistics)
      : RealBatchEngine(engine), engine_(engine), statistics_(statistics) {}
  absl::StatusOr<std::vector<RequestOutput>> Step() override;

 private:
  Engine& engine_;
  ShadowStatistics& statistics_;
};

// Settings' names and what they lost: two heat maps each, layers down and KV heads across.
std::string ShadowPlot(const std::string& model, const std::vector<std::pair<std::string, ShadowStatistics>>& settings);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_SHADOW_H_
