// The same budget for every layer.
#include "compression/budget.h"

namespace cairn {

std::vector<int32_t> UniformBudgets(int num_layers, int32_t budget) { return std::vector<int32_t>(num_layers, budget); }

}  // namespace cairn
