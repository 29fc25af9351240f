#include "compression/budget.h"

#include "kernels/core/check.h"

namespace cairn {
namespace {

const std::vector<double>& WeightsOf(const CompressionConfig& config, int num_layers) {
  const std::vector<double>& weights = config.by_head() ? config.head_weights : config.layer_weights;
  CAIRN_CHECK(static_cast<int>(weights.size()) == num_layers, weights.size(), " weights, ", num_layers, " budgets");
  return weights;
}

}  // namespace

int NumBudgets(const CompressionConfig& config, int64_t num_layers, int64_t num_kv_heads) {
  return static_cast<int>(num_layers * (config.by_head() ? num_kv_heads : 1));
}

std::vector<int32_t> AllocateBudgets(const CompressionConfig& config, int num_layers) {
  if (config.schedule == "pyramid") return PyramidBudgets(num_layers, config.budget, config.window, config.beta);
  if (config.schedule == "weighted") {
    return WeightedBudgets(WeightsOf(config, num_layers), config.budget, config.window);
  }
  CAIRN_CHECK(config.schedule == "uniform", config.schedule);
  return UniformBudgets(num_layers, config.budget);
}

std::vector<int32_t> AllocatePromptBudgets(const CompressionConfig& config, int num_layers, int32_t prompt_length) {
  if (prompt_length <= config.budget) return UniformBudgets(num_layers, prompt_length);
  if (config.schedule == "pyramid") {
    return PyramidPromptBudgets(num_layers, config.budget, config.window, config.beta, prompt_length);
  }
  if (config.schedule == "weighted") {
    return WeightedPromptBudgets(WeightsOf(config, num_layers), config.budget, config.window, prompt_length);
  }
  return AllocateBudgets(config, num_layers);
}

}  // namespace cairn
