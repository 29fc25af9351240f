// Continuous batching on the scheduling rank: decode tokens first, then prompt chunks up to the token budget, then new
// sequences where the cache has room; preemption by recompute when it has not. With pipeline stages a step is a
// micro-batch: the running sequences are spread over up to pp steps in flight.
#ifndef CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_
#define CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/cache/cache_accountant.h"
#include "engine/scheduler/step_plan.h"

namespace cairn {

struct SchedulerOptions {
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 512;
  int32_t pipeline_stages = 1;
};

// One answer in the making. The scheduler moves it; the engine owns what it means (`user`).
struct Sequence {
  OpenSequence spec;  // spec.sequence is the handle while running
  bool needs_history = false;
  std::vector<int32_t> tokens;  // prompt and answer
  void* user = nullptr;

  // The scheduler's:
  int64_t arrival = 0;
  int32_t num_fed = 0;      // tokens planned into the cache: the logical length
  int64_t held_tokens = 0;  // slots per layer accounted for
  int32_t preemptions = 0;
  int64_t peak_tokens = 0;  // largest held_tokens
  bool running = false;
  bool awaits_token = false;  // a step that samples for it is in flight
};

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, CacheAccountant accountant);

  // `sequence` stays the caller's; it must live until Remove.
  void Add(Sequence* sequence);
  // Takes a finished (or unwanted) sequence out; it must not await a token.
  void Remove(Sequence* sequence);

  // The next step, or none: nothing is ready (what runs is in flight), or there is nothing.
  std::optional<StepPlan> Next();
  // Appends the tokens that a step sampled to their sequences, which thereby become ready again.
  std::vector<std::pair<Sequence*, const TokenLogprob*>> Commit(const StepResult& result);
  // The closes that no step has carried yet; for the last message.
  std::vector<int32_t> TakeCloses() { return std::exchange(closes_, {}); }

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }
  int64_t peak_running() const { return peak_running_; }
  const CacheAccountant& accountant() const { return accountant_; }

 private:
  void PlanRunning(bool decode, int64_t max_sequences, int64_t& budget, StepPlan& plan);
  void Admit(int64_t& budget, StepPlan& plan);
  bool MakeRoom(Sequence* sequence, const StepPlan& plan);
  void Preempt(Sequence* sequence);
  void Leave(Sequence* sequence);
  void Feed(Sequence* sequence, int64_t& budget, StepPlan& plan);

  SchedulerOptions options_;
  CacheAccountant accountant_;
  std::deque<Sequence*> waiting_;   // in arrival order; the preempted in front
  std::vector<Sequence*> running_;  // in arrival order
  std::vector<Sequence*> by_handle_;
  std::vector<int32_t> free_handles_;
  std::vector<int32_t> closes_;
  bool preempted_in_step_ = false;
  int64_t next_arrival_ = 0, next_step_ = 0;
  int64_t preemptions_ = 0, peak_running_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_
