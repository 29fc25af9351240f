// R-KV (arXiv 2505.24133): lambda * importance - (1 - lambda) * redundancy. Near-duplicates of a newer key go first.
#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class RkvScorer : public Scorer {
 public:
  explicit RkvScorer(const CompressionConfig& config) : config_(config) {}

  bool needs_queries() const override { return true; }
  // Not a score: what KeyRedundancy remembers of a slot.
  bool needs_running_score() const override { return variant() == RedundancyVariant::kCode; }

  void Reserve(const Context& context, int64_t floats) const override {
    first_.Floats(context, 1, floats);
    second_.Floats(context, 1, floats);
  }
  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    const Tensor importance = first_.Floats(context, scores.dim(0), scores.dim(1));
    const Tensor pooled = second_.Floats(context, scores.dim(0), scores.dim(1));
    WindowImportance(context, inputs.kv, inputs.queries, importance);
    PoolSlots(context, importance, inputs.Candidates(config_.window), Pooling::kMax, config_.kernel_size, pooled);
    const Tensor& redundancy = importance;
    const bool remembers = inputs.kv[0].layout.has_score && variant() == RedundancyVariant::kCode;
    KeyRedundancy(context, inputs.kv, config_.window, static_cast<float>(config_.similarity_threshold), variant(),
                  remembers, redundancy);
    const double lambda = config_.mix_lambda;
    MixScores(context, static_cast<float>(lambda), pooled, static_cast<float>(lambda - 1), redundancy, scores);
  }

 private:
  RedundancyVariant variant() const {
    return config_.variant == "paper" ? RedundancyVariant::kPaper : RedundancyVariant::kCode;
  }

  CompressionConfig config_;
  mutable Temporary first_, second_;
};

}  // namespace

std::unique_ptr<Scorer> MakeRkvScorer(const CompressionConfig& config) { return std::make_unique<RkvScorer>(config); }

}  // namespace cairn
