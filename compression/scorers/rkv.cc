// R-KV (arXiv 2505.24133): lambda * importance - (1 - lambda) * redundancy. Near-duplicates of a newer key go first.
// rkv-history: importance is the mean over all windows of queries that a slot has seen, not the last one's alone.
#include <algorithm>

#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

// Of the running scores: what KeyRedundancy remembers of a slot, and the slot's mean importance.
constexpr int kMeanPlane = 1;

class RkvScorer : public Scorer {
 public:
  RkvScorer(const CompressionConfig& config, bool averages) : config_(config), averages_(averages) {}

  bool needs_queries() const override { return true; }
  int num_running_scores() const override {
    if (averages_) return kMeanPlane + 1;
    return variant() == RedundancyVariant::kCode ? 1 : 0;
  }
  bool observes() const override { return averages_; }

  void Reserve(const Context& context, int64_t floats) const override {
    first_.Floats(context, 1, floats);
    second_.Floats(context, 1, floats);
  }
  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    if (averages_) {
      Average(context, inputs, scores);
    } else {
      WindowImportance(context, inputs.kv, inputs.queries, config_.window, scores);
    }
    const Tensor pooled = second_.Floats(context, scores.dim(0), scores.dim(1));
    PoolSlots(context, scores, inputs.Candidates(config_.window), Pooling::kMax, config_.kernel_size, pooled);
    const Tensor redundancy = first_.Floats(context, scores.dim(0), scores.dim(1));
    const bool remembers = inputs.kv[0].layout.num_scores > 0 && variant() == RedundancyVariant::kCode;
    KeyRedundancy(context, inputs.kv, config_.window, static_cast<float>(config_.similarity_threshold), variant(),
                  remembers, redundancy);
    const double lambda = config_.mix_lambda;
    MixScores(context, static_cast<float>(lambda), pooled, static_cast<float>(lambda - 1), redundancy, scores);
  }
  void Observe(Context& context, const ScorerInputs& inputs) const override {
    int32_t longest = 0;
    for (const KvView& view : inputs.kv) longest = std::max(longest, view.num_slots);
    const int64_t rows = static_cast<int64_t>(inputs.kv.size()) * inputs.kv[0].layout.kv_heads;
    Average(context, inputs, second_.Floats(context, rows, longest - config_.window));
  }

 private:
  RedundancyVariant variant() const {
    return config_.variant == "paper" ? RedundancyVariant::kPaper : RedundancyVariant::kCode;
  }
  // The mean over windows of what their queries paid to a slot. Those of its own window count, before it or after:
  // there is nothing else to judge the newest by.
  void Average(Context& context, const ScorerInputs& inputs, const Tensor& scores) const {
    const Tensor importance = first_.Floats(context, scores.dim(0), scores.dim(1) + config_.window);
    WindowImportance(context, inputs.kv, inputs.queries, /*left_out=*/0, importance);
    AverageRunningScores(context, inputs.kv, config_.window, kMeanPlane, inputs.windows, importance, scores);
  }

  CompressionConfig config_;
  bool averages_;
  mutable Temporary first_, second_;
};

}  // namespace

std::unique_ptr<Scorer> MakeRkvScorer(const CompressionConfig& config) {
  return std::make_unique<RkvScorer>(config, /*averages=*/false);
}
std::unique_ptr<Scorer> MakeRkvHistoryScorer(const CompressionConfig& config) {
  return std::make_unique<RkvScorer>(config, /*averages=*/true);
}

}  // namespace cairn
