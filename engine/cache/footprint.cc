#include "engine/cache/footprint.h"

#include <algorithm>

#include "compression/budget.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

Budgets Share(std::vector<int32_t> budgets) { return std::make_shared<const std::vector<int32_t>>(std::move(budgets)); }

}  // namespace

Footprint::Footprint(const CompressionConfig& config, int64_t num_layers, int64_t num_kv_heads)
    : config_(config),
      num_budgets_(NumBudgets(config, num_layers, num_kv_heads)),
      budgets_(config.enabled() ? Share(AllocateBudgets(config, num_budgets_))
                                : Share(std::vector<int32_t>(num_budgets_, INT32_MAX))),
      trigger_(config, *budgets_) {}

Budgets Footprint::BudgetsFor(int64_t prompt_length) const {
  if (!config_.enabled() || config_.decode) return budgets_;
  return Share(AllocatePromptBudgets(config_, num_budgets_, static_cast<int32_t>(prompt_length)));
}

StageBlocks Footprint::Held(const CacheAccountant& accountant, const SequenceLength& length,
                            const Budgets& budgets) const {
  return accountant.Blocks([&](int64_t budget) { return length.slots((*budgets)[budget]); });
}

StageBlocks Footprint::Bound(const CacheAccountant& accountant, int64_t prompt_length, int64_t max_fed,
                             bool after_event, const Budgets& budgets) const {
  CAIRN_CHECK(config_.enabled());
  const int64_t first = trigger_.FirstEvent(prompt_length);
  // Between events a layer grows from at most K_l by the buffer; without decode events, by the whole answer.
  const int64_t growth = config_.decode ? config_.buffer : std::max<int64_t>(0, max_fed - prompt_length);
  StageBlocks bound = accountant.Blocks(
      [&](int64_t budget) { return std::min(max_fed, static_cast<int64_t>((*budgets)[budget]) + growth); });
  if (max_fed < first) return accountant.FullCache(max_fed);  // there will be no event
  if (after_event) return bound;
  const StageBlocks before = accountant.FullCache(first);
  for (size_t s = 0; s < bound.size(); ++s) bound[s] = std::max(bound[s], before[s]);
  return bound;
}

}  // namespace cairn
