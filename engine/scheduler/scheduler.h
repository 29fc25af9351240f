// Continuous batching on the scheduling rank: decode tokens first, then prompt chunks up to the token budget, then new
// sequences where the cache has room; preemption by recompute when it has not. With pipeline stages a step is a
// micro-batch: the running sequences are spread over up to pp steps in flight.
//
// With compression the scheduler also says when a sequence is compressed, admits by the bound of what it can ever hold,
// and therefore never preempts. An event frees its blocks at the end of its step on every rank, so the next plan may
// give them away; where the kept set comes back with the token (scope sequence), the plan that carries it out may.
#ifndef CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_
#define CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "compression/trigger.h"
#include "engine/cache/cache_accountant.h"
#include "engine/cache/footprint.h"
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
  int64_t max_fed = INT64_MAX;  // tokens that it will be fed at most: prompt and answer but for the last token
  void* user = nullptr;

  // The scheduler's:
  int64_t arrival = 0;
  SequenceLength length;  // tokens planned into the cache
  Budgets budgets;
  StageBlocks held, reserved;
  bool running = false;
  bool awaits_token = false;       // a step that samples for it is in flight
  bool awaits_compaction = false;  // a step that selects what it keeps is in flight, or its plan is

  // For reports.
  int32_t preemptions = 0;
  int32_t compactions = 0;
  int64_t evicted_slots = 0;                     // per KV head, summed over layers (over budgets)
  int64_t blocks_freed = 0;                      // by compactions, summed over stages
  int64_t peak_bytes = 0, full_cache_bytes = 0;  // at its largest; what it would be without compression

  int64_t unfed() const { return static_cast<int64_t>(tokens.size()) - length.fed; }
};

class Scheduler {
 public:
  // `accountant`: with nothing in use.
  Scheduler(const SchedulerOptions& options, const CacheAccountant& accountant, Footprint footprint);

  // Whether a sequence could run if it were alone; by how much a prompt may grow otherwise.
  bool CanEverRun(int64_t prompt_length, int64_t max_fed) const;

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
  // The blocks in use.
  const CacheAccountant& used() const { return used_; }

 private:
  bool compresses() const { return footprint_.config().enabled(); }
  void Hold(Sequence* sequence, StageBlocks wanted);
  void TakeCompactions(StepPlan& plan);
  void AccountForEvent(Sequence* sequence);
  void PlanRunning(bool decode, int64_t max_sequences, int64_t& budget, StepPlan& plan);
  void Admit(int64_t& budget, StepPlan& plan);
  bool MakeRoom(Sequence* sequence, const StepPlan& plan);
  void Preempt(Sequence* sequence);
  void Leave(Sequence* sequence);
  void Feed(Sequence* sequence, int64_t& budget, StepPlan& plan);

  SchedulerOptions options_;
  Footprint footprint_;
  CacheAccountant used_;                 // what is in use once everything planned has run
  CacheAccountant reserved_;             // what admission counts: the same without compression, the bounds with it
  std::vector<Sequence*> compacted_;     // their events are in steps already planned, or in `compactions_`
  std::vector<Compaction> compactions_;  // for the next plan
  std::deque<Sequence*> waiting_;        // in arrival order; the preempted in front
  std::vector<Sequence*> running_;       // in arrival order
  std::vector<Sequence*> by_handle_;
  std::vector<int32_t> free_handles_;
  std::vector<int32_t> closes_;
  bool preempted_in_step_ = false;
  int64_t next_arrival_ = 0, next_step_ = 0;
  int64_t preemptions_ = 0, peak_running_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_SCHEDULER_SCHEDULER_H_
