// A uniform sample of the tokens so far, another one for every KV head: the baseline that a method has to beat. A
// token's number is drawn once, from its position, head and layer, so that at any time every token before the window
// has the same chance to be there (a reservoir), whatever the ranks and the batch.
#include "compression/scorers/scorers.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class RandomScorer : public Scorer {
 public:
  explicit RandomScorer(const CompressionConfig& config) : window_(config.window) {}

  bool needs_queries() const override { return false; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    RandomScores(context, inputs.kv, window_, inputs.layers, inputs.first_kv_head, scores);
  }

 private:
  int window_;
};

}  // namespace

std::unique_ptr<Scorer> MakeRandomScorer(const CompressionConfig& config) {
  return std::make_unique<RandomScorer>(config);
}

}  // namespace cairn
