// What a sequence takes in the cache, now and at most, with its compressions. The full cache grows without a bound that
// anyone knows, so its sequences are given blocks as they need them. A compressed one is bounded by its budgets, so the
// bound is reserved when it is admitted, and it is never in want of a block again.
#ifndef CAIRN_ENGINE_CACHE_FOOTPRINT_H_
#define CAIRN_ENGINE_CACHE_FOOTPRINT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "compression/compression_config.h"
#include "compression/trigger.h"
#include "engine/cache/cache_accountant.h"

namespace cairn {

using Budgets = std::shared_ptr<const std::vector<int32_t>>;  // of every layer of the model, or KV head

class Footprint {
 public:
  // Of a model of so many layers and KV heads in each.
  Footprint(const CompressionConfig& config, int64_t num_layers, int64_t num_kv_heads);

  const CompressionConfig& config() const { return config_; }
  const Trigger& trigger() const { return trigger_; }
  // Of a sequence with this prompt (without decode-time events they are clamped to it).
  Budgets BudgetsFor(int64_t prompt_length) const;

  // The blocks that a sequence holds.
  StageBlocks Held(const CacheAccountant& accountant, const SequenceLength& length, const Budgets& budgets) const;
  // The most that it will hold at any moment, if it is fed at most `max_fed` tokens: before its first event, or after
  // one. Compression must be on.
  StageBlocks Bound(const CacheAccountant& accountant, int64_t prompt_length, int64_t max_fed, bool after_event,
                    const Budgets& budgets) const;

  // The most that a sequence with a short prompt will hold once it has been compressed: what decides how many fit.
  StageBlocks Steady(const CacheAccountant& accountant, int64_t max_fed) const {
    return Bound(accountant, 1, max_fed, /*after_event=*/true, BudgetsFor(1));
  }

 private:
  CompressionConfig config_;
  int num_budgets_;
  Budgets budgets_;
  Trigger trigger_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_FOOTPRINT_H_
