#include "compression/trigger.h"

#include "compression/budget.h"
#include "compression/scorer.h"
#include "kernels/core/check.h"

namespace cairn {

Trigger::Trigger(const CompressionConfig& config, const std::vector<int32_t>& budgets) : config_(config) {
  if (!config_.enabled()) return;
  min_budget_ = *std::min_element(budgets.begin(), budgets.end());
  observes_ = MakeScorer(config_)->observes();
  CAIRN_CHECK(min_budget_ > config_.window && config_.buffer >= config_.window, min_budget_, " ", config_.buffer);
}

// The layer with the smallest budget is full first, and the events of a sequence are `buffer` forwards apart.
int64_t Trigger::FirstEvent(int64_t prompt_length) const {
  // The prompt alone, with budgets that are clamped to it (AllocatePromptBudgets): some layer is above its budget as
  // soon as the prompt is longer than the mean.
  if (!config_.decode) return prompt_length > config_.budget ? prompt_length : INT64_MAX;
  const int64_t full = min_budget_ + config_.buffer;
  if (config_.bounded_prefill || prompt_length < full) return full;
  return config_.prefill ? prompt_length : prompt_length + config_.buffer;
}

bool Trigger::EventAt(int64_t prompt_length, int64_t fed) const {
  if (!config_.enabled()) return false;
  const int64_t first = FirstEvent(prompt_length);
  if (!config_.decode) return fed == first;
  return fed >= first && (fed - first) % config_.buffer == 0 && (config_.bounded_prefill || fed >= prompt_length);
}

bool Trigger::ObservesAt(int64_t prompt_length, int64_t fed) const {
  if (!observes_ || !config_.decode || fed < prompt_length || fed <= config_.window) return false;
  const int64_t from_first = fed - FirstEvent(prompt_length);
  if (from_first < 0) return -from_first % config_.window == 0;
  const int64_t since_event = from_first % config_.buffer;
  return since_event > 0 && since_event % config_.window == 0;
}

int64_t Trigger::ChunkEnd(int64_t prompt_length, int64_t fed) const {
  if (!config_.enabled() || !config_.bounded_prefill || !config_.decode) return INT64_MAX;
  const int64_t first = FirstEvent(prompt_length);
  return fed < first ? first : fed + config_.buffer - (fed - first) % config_.buffer;
}

}  // namespace cairn
