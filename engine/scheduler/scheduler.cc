#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace cairn {

Scheduler::Scheduler(const SchedulerOptions& options, CacheAccountant accountant)
    : options_(options), accountant_(std::move(accountant)), by_handle_(options.max_num_seqs, nullptr) {
  for (int32_t handle = options.max_num_seqs; handle-- > 0;) free_handles_.push_back(handle);
}

void Scheduler::Add(Sequence* sequence) {
  CAIRN_CHECK(!sequence->tokens.empty() && static_cast<int64_t>(sequence->tokens.size()) <= accountant_.MaxTokens());
  sequence->arrival = next_arrival_++;
  waiting_.push_back(sequence);
}

// Gives up the sequence's blocks and handle.
void Scheduler::Leave(Sequence* sequence) {
  CAIRN_CHECK(sequence->running && !sequence->awaits_token);
  accountant_.Release(sequence->held_tokens);
  closes_.push_back(sequence->spec.sequence);
  by_handle_[sequence->spec.sequence] = nullptr;
  free_handles_.push_back(sequence->spec.sequence);
  sequence->held_tokens = 0;
  sequence->num_fed = 0;
  sequence->running = false;
  running_.erase(std::find(running_.begin(), running_.end(), sequence));
}

void Scheduler::Remove(Sequence* sequence) {
  if (sequence->running) {
    Leave(sequence);
  } else {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), sequence));
  }
}

void Scheduler::Preempt(Sequence* sequence) {
  Leave(sequence);
  ++sequence->preemptions;
  ++preemptions_;
  preempted_in_step_ = true;
  waiting_.push_front(sequence);
}

// Blocks for the sequence's unfed tokens, if need be by preempting the newest running sequences that are neither in
// this plan nor in flight. False: it has to wait, or was preempted itself.
bool Scheduler::MakeRoom(Sequence* sequence, const StepPlan& plan) {
  const int64_t wanted = static_cast<int64_t>(sequence->tokens.size());
  while (!accountant_.CanGrow(sequence->held_tokens, wanted)) {
    Sequence* victim = nullptr;
    for (auto it = running_.rbegin(); it != running_.rend() && victim == nullptr; ++it) {
      const bool planned = std::any_of(plan.sequences.begin(), plan.sequences.end(),
                                       [&](const SequenceStep& step) { return step.sequence == (*it)->spec.sequence; });
      if (!planned && !(*it)->awaits_token) victim = *it;
    }
    if (victim == nullptr || victim->arrival < sequence->arrival) return false;  // the older ones go first
    Preempt(victim);
    if (victim == sequence) return false;
  }
  accountant_.Grow(sequence->held_tokens, wanted);
  sequence->held_tokens = wanted;
  sequence->peak_tokens = std::max(sequence->peak_tokens, wanted);
  return true;
}

void Scheduler::Feed(Sequence* sequence, int64_t& budget, StepPlan& plan) {
  const int64_t unfed = static_cast<int64_t>(sequence->tokens.size()) - sequence->num_fed;
  const int64_t count = std::min(unfed, budget);
  const auto first = sequence->tokens.begin() + sequence->num_fed;
  plan.sequences.push_back({.sequence = sequence->spec.sequence,
                            .position = sequence->num_fed,
                            .tokens = {first, first + count},
                            .sample = count == unfed});
  sequence->num_fed += static_cast<int32_t>(count);
  sequence->awaits_token = count == unfed;
  budget -= count;
}

// Feeds running sequences that are ready: those that decode (one unfed token), or those in the middle of a prompt.
void Scheduler::PlanRunning(bool decode, int64_t max_sequences, int64_t& budget, StepPlan& plan) {
  for (size_t i = 0; i < running_.size() && budget > 0 && max_sequences > 0; ++i) {
    Sequence* sequence = running_[i];
    const int64_t unfed = static_cast<int64_t>(sequence->tokens.size()) - sequence->num_fed;
    if (unfed == 0 || (unfed == 1) != decode) continue;
    if (!MakeRoom(sequence, plan)) {
      if (!sequence->running) break;  // it was the newest, nothing younger is left to plan
      i = std::find(running_.begin(), running_.end(), sequence) - running_.begin();
      continue;
    }
    i = std::find(running_.begin(), running_.end(), sequence) - running_.begin();  // victims may have left
    Feed(sequence, budget, plan);
    --max_sequences;
  }
}

// The whole prompt is accounted for at once, so that a prompt in chunks is never preempted for want of its own room;
// and one block more when others run, so that the newcomer is not the next step's victim.
void Scheduler::Admit(int64_t& budget, StepPlan& plan) {
  while (!waiting_.empty() && !free_handles_.empty() && budget > 0) {
    Sequence* sequence = waiting_.front();
    const int64_t tokens = static_cast<int64_t>(sequence->tokens.size());
    const int64_t margin = running_.empty() ? 0 : accountant_.block_size();
    if (!accountant_.CanGrow(0, tokens + margin)) return;
    waiting_.pop_front();
    accountant_.Grow(0, tokens);
    sequence->held_tokens = tokens;
    sequence->peak_tokens = std::max(sequence->peak_tokens, tokens);
    sequence->spec.sequence = free_handles_.back();
    free_handles_.pop_back();
    by_handle_[sequence->spec.sequence] = sequence;
    sequence->running = true;
    const auto place = std::find_if(running_.begin(), running_.end(),
                                    [&](const Sequence* other) { return other->arrival > sequence->arrival; });
    running_.insert(place, sequence);
    plan.opens.push_back(sequence->spec);
    if (sequence->needs_history) plan.opens.back().history = sequence->tokens;
    Feed(sequence, budget, plan);
  }
}

std::optional<StepPlan> Scheduler::Next() {
  StepPlan plan;
  preempted_in_step_ = false;
  int64_t budget = options_.max_num_batched_tokens;
  // An even share of the decoding sequences per micro-batch, so that every stage always has one to work on.
  const int64_t stages = options_.pipeline_stages;
  const int64_t share = (num_running() + stages - 1) / stages;
  PlanRunning(/*decode=*/true, share, budget, plan);
  PlanRunning(/*decode=*/false, INT64_MAX, budget, plan);
  if (!preempted_in_step_) Admit(budget, plan);
  if (plan.sequences.empty()) return std::nullopt;
  plan.closes = TakeCloses();
  plan.step = next_step_++;
  peak_running_ = std::max(peak_running_, num_running());
  return plan;
}

std::vector<std::pair<Sequence*, const TokenLogprob*>> Scheduler::Commit(const StepResult& result) {
  std::vector<std::pair<Sequence*, const TokenLogprob*>> committed;
  committed.reserve(result.tokens.size());
  for (const StepResult::Token& token : result.tokens) {
    Sequence* sequence = by_handle_[token.sequence];
    CAIRN_CHECK(sequence != nullptr && sequence->awaits_token, "step ", result.step, " sampled for ", token.sequence);
    sequence->awaits_token = false;
    sequence->tokens.push_back(token.sampled.token);
    committed.emplace_back(sequence, &token.sampled);
  }
  return committed;
}

}  // namespace cairn
