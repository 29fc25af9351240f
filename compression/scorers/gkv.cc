// G-KV (arXiv 2512.00504): a slot's attention now, or what is left of its best attention before; optionally against
// R-KV's redundancy.
#include "compression/scorers/scorers.h"
#include "compression/scorers/temporary.h"
#include "kernels/ops/kv_scores.h"

namespace cairn {
namespace {

class GkvScorer : public Scorer {
 public:
  explicit GkvScorer(const CompressionConfig& config) : config_(config) {}

  bool needs_queries() const override { return true; }
  int num_running_scores() const override { return 1; }

  void Reserve(const Context& context, int64_t floats) const override { temporary_.Floats(context, 1, floats); }
  void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const override {
    const Tensor local = temporary_.Floats(context, scores.dim(0), scores.dim(1));
    const auto candidates = inputs.Candidates(config_.window);
    WindowAttention(context, inputs.kv, inputs.queries, WindowReduce::kMeanOfMaxima, config_.window, local);
    DivideByRowMax(context, local, candidates);
    // Window slots never have a running score, new slots have 0, and attention is positive: no flag for "no old score".
    DecayRunningScores(context, inputs.kv, config_.window, static_cast<float>(config_.gamma), local, scores);
    if (!config_.gkv_redundancy) return;
    const Tensor& redundancy = local;
    KeyRedundancy(context, inputs.kv, config_.window, static_cast<float>(config_.similarity_threshold),
                  RedundancyVariant::kCode, /*remembers=*/false, redundancy);
    DivideByRowMax(context, redundancy, candidates);
    const double lambda = config_.mix_lambda;
    MixScores(context, static_cast<float>(lambda), scores, static_cast<float>(lambda - 1), redundancy, scores);
  }

 private:
  CompressionConfig config_;
  mutable Temporary temporary_;
};

}  // namespace

std::unique_ptr<Scorer> MakeGkvScorer(const CompressionConfig& config) { return std::make_unique<GkvScorer>(config); }

}  // namespace cairn
