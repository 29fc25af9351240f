// A uniform sample of the tokens so far, another one for every KV head: the baseline that a method has to beat. A
// token's number is drawn once, from its position, head and layer, so that at any time every token before the window
// has the same chance to be there (a reservoir), whatever the ranks and the batch.
#include "compression/scorers/scorers.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class RandomScorer : public Scorer {
 public:
  bool needs_queries() const override { return false; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    RandomScores(context, inputs.kv, inputs.layer, inputs.first_kv_head, scores);
  }
};

}  // namespace

std::unique_ptr<Scorer> MakeRandomScorer(const CompressionConfig&) { return std::make_unique<RandomScorer>(); }

}  // namespace cairn
