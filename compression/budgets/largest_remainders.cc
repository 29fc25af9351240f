#include "compression/budgets/largest_remainders.h"

#include <algorithm>
#include <numeric>

namespace cairn {

std::vector<int64_t> RoundByLargestRemainder(const std::vector<__int128>& numerators, __int128 denominator) {
  std::vector<int64_t> rounded;
  __int128 lost = 0;
  for (const __int128 numerator : numerators) {
    rounded.push_back(static_cast<int64_t>(numerator / denominator));
    lost += numerator % denominator;
  }
  std::vector<size_t> order(numerators.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return numerators[a] % denominator > numerators[b] % denominator; });
  for (int64_t i = 0; i < static_cast<int64_t>(lost / denominator); ++i) ++rounded[order[i]];
  return rounded;
}

}  // namespace cairn
