// H2O-lite (after arXiv 2306.14048): heavy hitters by the attention that the window queries of all compactions so far
// paid to a slot; the original sums over every query, which costs a pass over all scores at each step.
#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class H2oScorer : public Scorer {
 public:
  explicit H2oScorer(const CompressionConfig& config) : window_(config.window) {}

  bool needs_queries() const override { return true; }
  int num_running_scores() const override { return 1; }

  void Reserve(const Context& context, int64_t floats) const override { attention_.Floats(context, 1, floats); }
  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    const Tensor attention = attention_.Floats(context, scores.dim(0), scores.dim(1) + window_);
    WindowAttention(context, inputs.kv, inputs.queries, WindowReduce::kMeanOfHeads, /*left_out=*/0, attention);
    AddToRunningScores(context, inputs.kv, window_, 1.0f / static_cast<float>(window_), attention, scores);
  }

 private:
  int window_;
  mutable Temporary attention_;
};

}  // namespace

std::unique_ptr<Scorer> MakeH2oScorer(const CompressionConfig& config) { return std::make_unique<H2oScorer>(config); }

}  // namespace cairn
