// Budgets in proportion to a weight for each layer, as measured on the model (docs/compression.md): one slot beyond the
// window for every layer, and the rest by weight. In exact integers.
#include <cmath>

#include "compression/budget.h"
#include "compression/budgets/largest_remainders.h"
#include "compression/decimal.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

// x_l of the layers `open`, `total` in sum, each at least 1: 1 + (total - layers) weight_l / sum of weights.
std::vector<int64_t> Shares(const std::vector<int64_t>& weights, const std::vector<size_t>& open, int64_t total) {
  __int128 sum = 0;
  for (const size_t layer : open) sum += weights[layer];
  std::vector<__int128> numerators;
  for (const size_t layer : open) {
    const __int128 extra = total - static_cast<int64_t>(open.size());
    numerators.push_back(sum > 0 ? sum + extra * weights[layer] : static_cast<__int128>(total));
  }
  return RoundByLargestRemainder(numerators, sum > 0 ? sum : static_cast<__int128>(open.size()));
}

// No layer gets more than `most` beyond its window: what one cannot use goes to the others, by their weights.
std::vector<int32_t> Distribute(const std::vector<double>& layer_weights, int64_t C, int32_t window, int64_t most) {
  std::vector<int64_t> weights;
  std::vector<size_t> open;
  for (const double weight : layer_weights) {
    weights.push_back(std::llround(weight * static_cast<double>(kDecimalUnits)));
    open.push_back(open.size());
  }
  std::vector<int32_t> budgets(layer_weights.size(), static_cast<int32_t>(most + window));
  int64_t total = static_cast<int64_t>(layer_weights.size()) * C;
  while (!open.empty()) {
    const std::vector<int64_t> shares = Shares(weights, open, total);
    std::vector<size_t> below;
    for (size_t i = 0; i < open.size(); ++i) {
      if (shares[i] < most) below.push_back(open[i]);
    }
    if (below.size() == open.size()) {
      for (size_t i = 0; i < open.size(); ++i) budgets[open[i]] = static_cast<int32_t>(shares[i] + window);
      break;
    }
    total -= most * static_cast<int64_t>(open.size() - below.size());
    open = std::move(below);
  }
  return budgets;
}

}  // namespace

std::vector<int32_t> WeightedBudgets(const std::vector<double>& layer_weights, int32_t budget, int32_t window) {
  CAIRN_CHECK(!layer_weights.empty() && budget > window, layer_weights.size(), " ", budget, " ", window);
  const int64_t C = budget - window;
  return Distribute(layer_weights, C, window, static_cast<int64_t>(layer_weights.size()) * C);
}

std::vector<int32_t> WeightedPromptBudgets(const std::vector<double>& layer_weights, int32_t budget, int32_t window,
                                           int32_t prompt_length) {
  CAIRN_CHECK(prompt_length > budget && budget > window, prompt_length, " ", budget, " ", window);
  return Distribute(layer_weights, budget - window, window, prompt_length - window);
}

}  // namespace cairn
