// KeyDiff (arXiv 2504.15364): keys unlike the average key stay. Asks for no queries.
#include "compression/scorers/scorers.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class KeyDiffScorer : public Scorer {
 public:
  bool needs_queries() const override { return false; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    KeyDifference(context, inputs.kv, scores);
  }
};

}  // namespace

std::unique_ptr<Scorer> MakeKeyDiffScorer(const CompressionConfig&) { return std::make_unique<KeyDiffScorer>(); }

}  // namespace cairn
