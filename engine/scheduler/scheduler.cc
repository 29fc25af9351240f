#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace cairn {

Scheduler::Scheduler(const SchedulerOptions& options, const CacheAccountant& accountant, Footprint footprint)
    : options_(options),
      footprint_(std::move(footprint)),
      used_(accountant),
      reserved_(accountant),
      by_handle_(options.max_num_seqs, nullptr) {
  for (int32_t handle = options.max_num_seqs; handle-- > 0;) free_handles_.push_back(handle);
}

bool Scheduler::CanEverRun(int64_t prompt_length, int64_t max_fed) const {
  if (!compresses()) return used_.Fits(used_.FullCache(prompt_length));  // max_model_len sees to the answer
  return used_.Fits(
      footprint_.Bound(used_, prompt_length, max_fed, /*after_event=*/false, footprint_.BudgetsFor(prompt_length)));
}

void Scheduler::Add(Sequence* sequence) {
  CAIRN_CHECK(!sequence->tokens.empty() && CanEverRun(sequence->spec.prompt_length, sequence->max_fed));
  sequence->arrival = next_arrival_++;
  sequence->budgets = footprint_.BudgetsFor(sequence->spec.prompt_length);
  waiting_.push_back(sequence);
}

// Gives up the sequence's blocks and handle.
void Scheduler::Leave(Sequence* sequence) {
  CAIRN_CHECK(sequence->running && !sequence->awaits_token);
  const int32_t handle = sequence->spec.sequence;
  if (std::erase(compacted_, sequence) > 0) AccountForEvent(sequence);
  std::erase_if(compactions_, [handle](const Compaction& compaction) { return compaction.sequence == handle; });
  sequence->full_cache_bytes = std::max(sequence->full_cache_bytes, used_.Bytes(used_.FullCache(sequence->length.fed)));
  used_.Release(sequence->held);
  reserved_.Release(sequence->reserved);
  closes_.push_back(handle);
  by_handle_[handle] = nullptr;
  free_handles_.push_back(handle);
  sequence->length = {};
  sequence->awaits_compaction = false;
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
  if (compresses()) return true;  // reserved when it was admitted
  StageBlocks wanted = reserved_.FullCache(static_cast<int64_t>(sequence->tokens.size()));
  while (!reserved_.CanReplace(sequence->reserved, wanted)) {
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
  reserved_.Replace(sequence->reserved, std::move(wanted));
  return true;
}

void Scheduler::Hold(Sequence* sequence, StageBlocks wanted) {
  used_.Replace(sequence->held, std::move(wanted));
  sequence->peak_bytes = std::max(sequence->peak_bytes, used_.Bytes(sequence->held));
}

// The sequence's last fed tokens end in an event that no later plan precedes: its blocks are free for the next one.
void Scheduler::AccountForEvent(Sequence* sequence) {
  const SequenceLength before = sequence->length;
  sequence->length.fed_at_event = sequence->length.fed;
  for (const int32_t budget : *sequence->budgets) {
    sequence->evicted_slots += before.slots(budget) - sequence->length.slots(budget);
  }
  const StageBlocks held = sequence->held;
  Hold(sequence, footprint_.Held(used_, sequence->length, sequence->budgets));
  for (size_t s = 0; s < held.size(); ++s) sequence->blocks_freed += held[s] - sequence->held[s];
  reserved_.Replace(sequence->reserved, footprint_.Bound(reserved_, sequence->spec.prompt_length, sequence->max_fed,
                                                         /*after_event=*/true, sequence->budgets));
  ++sequence->compactions;
  sequence->awaits_compaction = false;
}

// What earlier plans have compressed, and what this one carries out first.
void Scheduler::TakeCompactions(StepPlan& plan) {
  plan.compactions = std::exchange(compactions_, {});
  for (const Compaction& compaction : plan.compactions) AccountForEvent(by_handle_[compaction.sequence]);
  for (Sequence* sequence : std::exchange(compacted_, {})) AccountForEvent(sequence);
}

void Scheduler::Feed(Sequence* sequence, int64_t& budget, StepPlan& plan) {
  const Trigger& trigger = footprint_.trigger();
  const int64_t prompt = sequence->spec.prompt_length, fed = sequence->length.fed, unfed = sequence->unfed();
  int64_t count = std::min(unfed, budget);
  if (fed < prompt) count = std::min(count, trigger.ChunkEnd(prompt, fed) - fed);
  const auto first = sequence->tokens.begin() + fed;
  sequence->length.fed += count;
  sequence->awaits_token = count == unfed;
  plan.sequences.push_back({.sequence = sequence->spec.sequence,
                            .position = static_cast<int32_t>(fed),
                            .tokens = {first, first + count},
                            .sample = sequence->awaits_token,
                            .compress = trigger.EventAt(prompt, sequence->length.fed),
                            .observe = trigger.ObservesAt(prompt, sequence->length.fed)});
  Hold(sequence, footprint_.Held(used_, sequence->length, sequence->budgets));
  if (plan.sequences.back().compress) {
    if (footprint_.config().keep_scope() == KeepScope::kSequence) {
      sequence->awaits_compaction = true;
    } else {
      compacted_.push_back(sequence);
    }
  }
  budget -= count;
}

// Feeds running sequences that are ready: those that decode (one unfed token), or those in the middle of a prompt.
void Scheduler::PlanRunning(bool decode, int64_t max_sequences, int64_t& budget, StepPlan& plan) {
  for (size_t i = 0; i < running_.size() && budget > 0 && max_sequences > 0; ++i) {
    Sequence* sequence = running_[i];
    if (sequence->unfed() == 0 || (sequence->unfed() == 1) != decode || sequence->awaits_compaction) continue;
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
// and one block more when others run, so that the newcomer is not the next step's victim. A compressed sequence is
// admitted with all that it will ever hold.
void Scheduler::Admit(int64_t& budget, StepPlan& plan) {
  while (!waiting_.empty() && !free_handles_.empty() && budget > 0) {
    Sequence* sequence = waiting_.front();
    StageBlocks wanted;
    if (compresses()) {
      wanted = footprint_.Bound(reserved_, sequence->spec.prompt_length, sequence->max_fed, /*after_event=*/false,
                                sequence->budgets);
      if (!reserved_.CanReplace({}, wanted)) return;
    } else {
      const int64_t tokens = static_cast<int64_t>(sequence->tokens.size());
      const int64_t margin = running_.empty() ? 0 : reserved_.block_size();
      if (!reserved_.CanReplace({}, reserved_.FullCache(tokens + margin))) return;
      wanted = reserved_.FullCache(tokens);
    }
    waiting_.pop_front();
    reserved_.Replace(sequence->reserved, std::move(wanted));
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
  TakeCompactions(plan);
  int64_t budget = options_.max_num_batched_tokens;
  // An even share of the decoding sequences per micro-batch, so that every stage always has one to work on.
  const int64_t stages = options_.pipeline_stages;
  const int64_t share = (num_running() + stages - 1) / stages;
  PlanRunning(/*decode=*/true, share, budget, plan);
  PlanRunning(/*decode=*/false, INT64_MAX, budget, plan);
  if (!preempted_in_step_) Admit(budget, plan);
  if (plan.sequences.empty()) {
    CAIRN_CHECK(plan.compactions.empty(), "a compacted sequence is not ready");
    return std::nullopt;
  }
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
  for (const Compaction& compaction : result.compactions) {
    CAIRN_CHECK(by_handle_[compaction.sequence] != nullptr && by_handle_[compaction.sequence]->awaits_compaction);
    compactions_.push_back(compaction);
  }
  return committed;
}

}  // namespace cairn
