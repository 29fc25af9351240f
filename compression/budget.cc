#include "compression/budget.h"

#include "kernels/core/check.h"

namespace cairn {

std::vector<int32_t> AllocateBudgets(const CompressionConfig& config, int num_layers) {
  if (config.schedule == "pyramid") return PyramidBudgets(num_layers, config.budget, config.window, config.beta);
  if (config.schedule == "weighted") {
    CAIRN_CHECK(config.ValidateFor(num_layers).ok(), config.layer_weights.size(), " weights, ", num_layers, " layers");
    return WeightedBudgets(config.layer_weights, config.budget, config.window);
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
    return WeightedPromptBudgets(config.layer_weights, config.budget, config.window, prompt_length);
  }
  return AllocateBudgets(config, num_layers);
}

}  // namespace cairn
