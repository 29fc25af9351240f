// Real numbers into integers with the same sum.
#ifndef CAIRN_COMPRESSION_BUDGETS_LARGEST_REMAINDERS_H_
#define CAIRN_COMPRESSION_BUDGETS_LARGEST_REMAINDERS_H_

#include <cstdint>
#include <vector>

namespace cairn {

// numerators[i] / denominator, not negative, rounded down; and what is missing to their sum, a whole number, is given
// to those that lost most, ties to the earlier one.
std::vector<int64_t> RoundByLargestRemainder(const std::vector<__int128>& numerators, __int128 denominator);

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_BUDGETS_LARGEST_REMAINDERS_H_
