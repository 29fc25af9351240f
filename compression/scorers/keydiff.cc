// KeyDiff (arXiv 2504.15364): keys unlike the average key stay. Asks for no queries.
#include "compression/scorers/scorers.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class KeyDiffScorer : public Scorer {
 public:
  explicit KeyDiffScorer(const CompressionConfig& config) : window_(config.window) {}

  bool needs_queries() const override { return false; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    KeyDifference(context, inputs.kv, window_, scores);
  }

 private:
  int window_;
};

}  // namespace

std::unique_ptr<Scorer> MakeKeyDiffScorer(const CompressionConfig& config) {
  return std::make_unique<KeyDiffScorer>(config);
}

}  // namespace cairn
