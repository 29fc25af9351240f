// H2O-lite (after arXiv 2306.14048): heavy hitters by the attention that the window queries of all compactions so far
// paid to a slot; the original sums over every query, which costs a pass over all scores at each step.
#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class H2oScorer : public Scorer {
 public:
  bool needs_queries() const override { return true; }
  bool needs_running_score() const override { return true; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    const Tensor attention = attention_.Floats(context, scores.dim(0), inputs.kv.num_slots);
    WindowAttention(context, inputs.kv, inputs.queries, WindowReduce::kMeanOfHeads, attention);
    AddToRunningScores(context, inputs.kv, 1.0f / static_cast<float>(inputs.queries.dim(0)), attention, scores);
  }

 private:
  mutable Temporary attention_;
};

}  // namespace

std::unique_ptr<Scorer> MakeH2oScorer(const CompressionConfig&) { return std::make_unique<H2oScorer>(); }

}  // namespace cairn
