// SnapKV (arXiv 2404.14469), and with the pyramid's budgets PyramidKV (arXiv 2406.02069): the attention that the last
// queries pay to a slot and its neighbours.
#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class SnapKvScorer : public Scorer {
 public:
  explicit SnapKvScorer(const CompressionConfig& config) : config_(config) {}

  bool needs_queries() const override { return true; }

  void Reserve(const Context& context, int64_t floats) const override { attention_.Floats(context, 1, floats); }
  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    const Tensor attention = attention_.Floats(context, scores.dim(0), scores.dim(1));
    WindowAttention(context, inputs.kv, inputs.queries, reduce(), config_.window, attention);
    PoolSlots(context, attention, inputs.Candidates(config_.window),
              config_.pooling == "avg" ? Pooling::kAverage : Pooling::kMax, config_.kernel_size, scores);
  }

 private:
  WindowReduce reduce() const {
    if (config_.group_reduce == "max") return WindowReduce::kMaxOfHeads;
    return config_.group_reduce == "sum" ? WindowReduce::kSumOfHeads : WindowReduce::kMeanOfHeads;
  }

  CompressionConfig config_;
  mutable Temporary attention_;
};

}  // namespace

std::unique_ptr<Scorer> MakeSnapKvScorer(const CompressionConfig& config) {
  return std::make_unique<SnapKvScorer>(config);
}

}  // namespace cairn
