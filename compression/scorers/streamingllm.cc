// StreamingLLM (arXiv 2309.17453): the first tokens, on which attention rests when it has nothing to say, and the most
// recent ones.
#include "compression/scorers/scorers.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class StreamingLlmScorer : public Scorer {
 public:
  explicit StreamingLlmScorer(const CompressionConfig& config) : num_sinks_(config.num_sinks) {}

  bool needs_queries() const override { return false; }
  int num_sinks() const override { return num_sinks_; }

  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    SlotRecency(context, inputs.kv, scores);
  }

 private:
  int num_sinks_;
};

}  // namespace

std::unique_ptr<Scorer> MakeStreamingLlmScorer(const CompressionConfig& config) {
  return std::make_unique<StreamingLlmScorer>(config);
}

}  // namespace cairn
