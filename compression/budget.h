// How many slots each layer keeps: exact integers, the same table on every rank (COMPRESSION section 5; PyramidKV,
// arXiv 2406.02069, equation 6, with largest remainders in place of its floors).
#ifndef CAIRN_COMPRESSION_BUDGET_H_
#define CAIRN_COMPRESSION_BUDGET_H_

#include <cstdint>
#include <vector>

#include "compression/compression_config.h"

namespace cairn {

// K_l of every layer of the model (by global index), or of every KV head of every layer (layer by layer) where `config`
// is by_head: how many budgets that makes. Everything below takes such a number for its layers.
int NumBudgets(const CompressionConfig& config, int64_t num_layers, int64_t num_kv_heads);

// Sums to num_layers * budget, each at least window + 1. A pyramid never grows with depth.
std::vector<int32_t> AllocateBudgets(const CompressionConfig& config, int num_layers);

// The same for a prompt of `prompt_length` tokens that is compressed once: no layer is given more than the prompt has,
// and what a layer cannot use goes to others.
std::vector<int32_t> AllocatePromptBudgets(const CompressionConfig& config, int num_layers, int32_t prompt_length);

// budgets/uniform.cc.
std::vector<int32_t> UniformBudgets(int num_layers, int32_t budget);

// budgets/pyramid.cc. `slope` is beta, taken to six decimals as an exact fraction; 1 or more. At least one layer;
// window < budget < prompt_length.
std::vector<int32_t> PyramidBudgets(int num_layers, int32_t budget, int32_t window, double slope);
std::vector<int32_t> PyramidPromptBudgets(int num_layers, int32_t budget, int32_t window, double slope,
                                          int32_t prompt_length);

// budgets/weighted.cc. A weight for each layer, 0 or more, to six decimals; window < budget < prompt_length.
std::vector<int32_t> WeightedBudgets(const std::vector<double>& layer_weights, int32_t budget, int32_t window);
std::vector<int32_t> WeightedPromptBudgets(const std::vector<double>& layer_weights, int32_t budget, int32_t window,
                                           int32_t prompt_length);

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_BUDGET_H_
