// PyramidKV's budgets (arXiv 2406.02069): most for the first layers, whose attention is spread, falling linearly to the
// last, whose attention rests on few tokens. In exact integers: all x_l are multiples of 1 / denominator.
#include <numeric>

#include "compression/budget.h"
#include "compression/budgets/largest_remainders.h"
#include "compression/decimal.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

using Int128 = __int128;

// budgets[l] = window + x_l, rounded so that the sum stays, where x falls linearly from 2 C - last to last.
std::vector<int32_t> LinearBudgets(int num_layers, int64_t C, const Fraction& last, int32_t window) {
  const int64_t L = num_layers;
  if (L == 1) return {static_cast<int32_t>(C + window)};
  // x_l = first - l (first - last) / (L - 1), times u (L - 1).
  const Int128 u = last.denominator, first = 2 * C * u - last.numerator, fall = first - last.numerator;
  const Int128 denominator = u * (L - 1);
  std::vector<Int128> numerators(L);
  for (int64_t l = 0; l < L; ++l) numerators[l] = first * (L - 1) - l * fall;
  std::vector<int32_t> budgets;
  for (const int64_t x : RoundByLargestRemainder(numerators, denominator)) {
    budgets.push_back(static_cast<int32_t>(x + window));
  }
  return budgets;
}

// Slots of the deepest layer beyond the window: max(1, C / beta).
Fraction DeepestLayer(int64_t C, double slope) {
  const Fraction beta = DecimalFraction(slope);
  const Int128 numerator = static_cast<Int128>(C) * beta.denominator;
  if (numerator <= beta.numerator) return {1, 1};
  const int64_t common = static_cast<int64_t>(std::gcd(static_cast<int64_t>(numerator), beta.numerator));
  return {static_cast<int64_t>(numerator) / common, beta.numerator / common};
}

}  // namespace

std::vector<int32_t> PyramidBudgets(int num_layers, int32_t budget, int32_t window, double slope) {
  CAIRN_CHECK(num_layers > 0 && budget > window && slope >= 1, num_layers, " ", budget, " ", window, " ", slope);
  const int64_t C = budget - window;
  return LinearBudgets(num_layers, C, DeepestLayer(C, slope), window);
}

std::vector<int32_t> PyramidPromptBudgets(int num_layers, int32_t budget, int32_t window, double slope,
                                          int32_t prompt_length) {
  CAIRN_CHECK(prompt_length > budget, prompt_length, " ", budget);
  const int64_t C = budget - window, most = prompt_length - window;
  Fraction last = DeepestLayer(C, slope);
  // first = 2 C - last > most?
  if ((2 * C - most) * static_cast<Int128>(last.denominator) > last.numerator) last = {2 * C - most, 1};
  return LinearBudgets(num_layers, C, last, window);
}

}  // namespace cairn
