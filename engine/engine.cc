#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/answer.h"
#include "engine/rank_setup.h"
#include "engine/scheduler/scheduler.h"
#include "kernels/core/fnv1a.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

constexpr int kPlanTag = 1, kResultTag = 2, kEvictionsTag = 3;

// The request's part of the random numbers' key.
uint64_t KeyOf(const std::string& id) {
  uint64_t hash = kFnv1aSeed;
  for (const unsigned char byte : id) hash = Fnv1a(hash, byte);
  return hash;
}

// A request with its n answers, each a sequence of the scheduler's.
struct Running {
  struct Branch {
    Sequence sequence;
    std::unique_ptr<Answer> answer;
    bool removed = false;
  };
  Request request;
  std::vector<std::unique_ptr<Branch>> branches;
  RequestOutput output;  // the numbers; completions are taken from the branches
  bool cancelled = false;
};

}  // namespace

struct Engine::Impl {
  using Clock = std::chrono::steady_clock;

  std::unique_ptr<ControlChannel> own_world;  // CreateLocal's; the groups refer to it
  ProcessGroups groups;
  RankSetup setup;
  std::unique_ptr<Scheduler> scheduler;
  absl::flat_hash_map<std::string, std::unique_ptr<Running>> requests;
  absl::flat_hash_map<const Sequence*, std::pair<Running*, Running::Branch*>> branch_of;
  int steps_in_flight = 0;
  std::deque<StepResult> local_results;               // of the steps in flight, where this rank samples
  std::deque<std::vector<Eviction>> local_evictions;  // of the steps in flight, where they are recorded
  std::vector<Eviction> evictions;
  EngineStats stats;
  Clock::time_point start = Clock::now();

  double Now() const { return std::chrono::duration<double>(Clock::now() - start).count(); }

  absl::Status CheckFits(const Request& request) const;
  void AddBranch(Running& running, int32_t index, int32_t max_tokens);
  absl::StatusOr<bool> LaunchStep();
  absl::StatusOr<StepResult> FinishStep();
  bool records_evictions() const { return setup.options.record_evictions && setup.options.compression.enabled(); }
  absl::Status CollectEvictions();
  void RemoveBranch(Running::Branch& branch);
  void AddCounters(const Sequence& sequence, RequestOutput& output);
  std::vector<RequestOutput> Deliver(const StepResult& result);
  void DropCancelled();
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options, ProcessGroups groups) {
  auto impl = std::make_unique<Impl>();
  impl->groups = std::move(groups);
  CAIRN_ASSIGN_OR_RETURN(impl->setup, SetUpRank(options, impl->groups));
  const EngineOptions& resolved = impl->setup.options;
  if (impl->records_evictions()) {
    impl->setup.runner->compressor()->RecordEvictions();
    if (resolved.shadow_full) impl->setup.runner->compressor()->KeepShadow(impl->setup.runner->cache());
  }
  if (impl->groups.is_leader()) {
    impl->scheduler = std::make_unique<Scheduler>(
        SchedulerOptions{.max_num_seqs = resolved.max_num_seqs,
                         .max_num_batched_tokens = resolved.max_num_batched_tokens,
                         .pipeline_stages = resolved.parallel.pp},
        CacheAccountant(impl->setup.stages, resolved.block_size),
        Footprint(resolved.compression, impl->setup.config.num_layers, impl->setup.config.num_kv_heads));
  }
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::CreateLocal(const EngineOptions& options) {
  std::unique_ptr<ControlChannel> world = MakeSingleRankWorld();
  CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(world.get(), options.parallel));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Create(options, std::move(groups)));
  engine->impl_->own_world = std::move(world);
  return engine;
}

// --- Requests ---

absl::Status Engine::Impl::CheckFits(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  CAIRN_RETURN_IF_ERROR(sampling.Validate());
  if (request.prompt_ids.empty()) return absl::InvalidArgumentError("the prompt is empty");
  for (int32_t id : request.prompt_ids) {
    if (id < 0 || id >= setup.config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompt token id ", id, " is outside the vocabulary 0..", setup.config.vocab_size - 1));
    }
  }
  if (!sampling.stop.empty() && setup.tokenizer == nullptr) {
    return absl::InvalidArgumentError("stop strings need a tokenizer: give --tokenizer, or use stop_token_ids");
  }
  const int64_t prompt = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t answer = sampling.max_tokens.value_or(1);
  if (prompt + answer > setup.options.max_model_len) {
    return absl::OutOfRangeError(absl::StrCat(
        "the prompt has ", prompt, " tokens", sampling.max_tokens ? absl::StrCat(" and max_tokens is ", answer) : "",
        ": ", prompt + answer, " in all, ", prompt + answer - setup.options.max_model_len, " more than the context of ",
        setup.options.max_model_len, " (--max-model-len)"));
  }
  const int64_t longest = sampling.max_tokens ? prompt + answer : setup.options.max_model_len;
  if (!scheduler->CanEverRun(prompt, longest - 1)) {
    return absl::OutOfRangeError(absl::StrCat(
        "the prompt has ", prompt, " tokens, which do not fit the KV cache before they are compressed: it holds ",
        scheduler->used().MaxTokens(),
        " (raise --kv-cache-memory-bytes or --gpu-memory-utilization, or compress the "
        "prompt as it is read with --kv-bounded-prefill)"));
  }
  return absl::OkStatus();
}

void Engine::Impl::AddBranch(Running& running, int32_t index, int32_t max_tokens) {
  const SamplingParams& sampling = running.request.sampling;
  auto branch = std::make_unique<Running::Branch>();
  branch->answer =
      std::make_unique<Answer>(sampling, index, setup.config.eos_token_ids, setup.tokenizer.get(), max_tokens);
  Sequence& sequence = branch->sequence;
  sequence.tokens = running.request.prompt_ids;
  sequence.tokens.reserve(sequence.tokens.size() + std::min(max_tokens, 4096));
  sequence.needs_history =
      sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 || sampling.frequency_penalty != 0;
  sequence.max_fed = static_cast<int64_t>(sequence.tokens.size()) + max_tokens - 1;
  sequence.spec.request_id = running.request.id;
  sequence.spec.prompt_length = static_cast<int32_t>(running.request.prompt_ids.size());
  sequence.spec.sampler = {.seed = static_cast<uint64_t>(sampling.seed.value_or(setup.options.seed)),
                           .request_key = KeyOf(running.request.id),
                           .index = index,
                           .temperature = sampling.temperature,
                           .top_p = sampling.top_p,
                           .min_p = sampling.min_p,
                           .top_k = std::max(0, sampling.top_k),
                           .repetition_penalty = sampling.repetition_penalty,
                           .presence_penalty = sampling.presence_penalty,
                           .frequency_penalty = sampling.frequency_penalty,
                           .min_tokens = sampling.min_tokens,
                           .num_logprobs = sampling.logprobs.value_or(-1)};
  if (sampling.min_tokens > 0) {
    sequence.spec.masked_tokens = sampling.stop_token_ids;
    sequence.spec.masked_tokens.insert(sequence.spec.masked_tokens.end(), setup.config.eos_token_ids.begin(),
                                       setup.config.eos_token_ids.end());
  }
  branch_of[&sequence] = {&running, branch.get()};
  scheduler->Add(&sequence);
  running.branches.push_back(std::move(branch));
}

absl::Status Engine::Add(Request request) {
  CAIRN_CHECK(impl_->scheduler != nullptr, "only the leader adds requests");
  CAIRN_RETURN_IF_ERROR(impl_->CheckFits(request));
  if (impl_->requests.contains(request.id)) {
    return absl::AlreadyExistsError(absl::StrCat("a request with the id '", request.id, "' is running"));
  }
  const int64_t room = impl_->setup.options.max_model_len - static_cast<int64_t>(request.prompt_ids.size());
  const int32_t max_tokens =
      static_cast<int32_t>(std::min<int64_t>(request.sampling.max_tokens.value_or(INT32_MAX), room));
  auto running = std::make_unique<Running>();
  running->request = std::move(request);
  running->output.id = running->request.id;
  running->output.prompt_tokens = static_cast<int64_t>(running->request.prompt_ids.size());
  running->output.arrival_seconds = impl_->Now();
  for (int32_t index = 0; index < running->request.sampling.n; ++index) impl_->AddBranch(*running, index, max_tokens);
  impl_->requests[running->output.id] = std::move(running);
  return absl::OkStatus();
}

absl::Status Engine::Cancel(const std::string& id) {
  const auto found = impl_->requests.find(id);
  if (found == impl_->requests.end()) return absl::NotFoundError(absl::StrCat("no request '", id, "' is running"));
  found->second->cancelled = true;
  impl_->DropCancelled();
  return absl::OkStatus();
}

void Engine::Impl::RemoveBranch(Running::Branch& branch) {
  scheduler->Remove(&branch.sequence);
  branch_of.erase(&branch.sequence);
  branch.removed = true;
}

// A sequence whose token is under way leaves when it has come.
void Engine::Impl::DropCancelled() {
  for (auto it = requests.begin(); it != requests.end();) {
    bool gone = it->second->cancelled;
    if (it->second->cancelled) {
      for (auto& branch : it->second->branches) {
        if (!branch->removed && !branch->sequence.awaits_token) RemoveBranch(*branch);
        gone = gone && branch->removed;
      }
    }
    const auto current = it++;
    if (gone) requests.erase(current);
  }
}

bool Engine::HasWork() const { return !impl_->requests.empty(); }
int64_t Engine::num_unfinished() const { return static_cast<int64_t>(impl_->requests.size()); }
int64_t Engine::num_running() const { return impl_->scheduler == nullptr ? 0 : impl_->scheduler->num_running(); }

// --- Steps ---

// The path of a token, on the leader: plan, tell the others, run this rank's part. False: nothing was ready.
absl::StatusOr<bool> Engine::Impl::LaunchStep() {
  std::optional<StepPlan> plan = scheduler->Next();
  if (!plan.has_value()) return false;
  ++stats.steps;
  if (groups.replica->size() > 1) {
    const std::string bytes = plan->Serialize();
    for (int rank = 1; rank < groups.replica->size(); ++rank) {
      CAIRN_RETURN_IF_ERROR(groups.replica->Send(rank, kPlanTag, bytes));
    }
  }
  CAIRN_ASSIGN_OR_RETURN(std::optional<StepResult> result, setup.runner->Run(*plan));
  if (result.has_value()) local_results.push_back(*std::move(result));
  if (records_evictions()) local_evictions.push_back(setup.runner->compressor()->TakeEvictions());
  ++steps_in_flight;
  return true;
}

// Every rank's records of the oldest step in flight.
absl::Status Engine::Impl::CollectEvictions() {
  const auto add = [this](std::vector<Eviction> more) {
    evictions.insert(evictions.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  };
  add(std::move(local_evictions.front()));
  local_evictions.pop_front();
  for (int rank = 1; rank < groups.replica->size(); ++rank) {
    CAIRN_ASSIGN_OR_RETURN(ControlMessage message,
                           groups.replica->Recv(rank, kEvictionsTag, setup.options.distributed_timeout_seconds));
    add(ParseEvictions(message.bytes));
  }
  return absl::OkStatus();
}

// The result of the oldest step in flight.
absl::StatusOr<StepResult> Engine::Impl::FinishStep() {
  --steps_in_flight;
  if (records_evictions()) CAIRN_RETURN_IF_ERROR(CollectEvictions());
  if (setup.runner->is_sampling_rank()) {
    StepResult result = std::move(local_results.front());
    local_results.pop_front();
    return result;
  }
  const int sampler = (groups.sizes.pp - 1) * groups.sizes.tp;
  CAIRN_ASSIGN_OR_RETURN(ControlMessage message,
                         groups.replica->Recv(sampler, kResultTag, setup.options.distributed_timeout_seconds));
  return StepResult::Parse(message.bytes);
}

// What a sequence that has left has cost.
void Engine::Impl::AddCounters(const Sequence& sequence, RequestOutput& output) {
  const CacheCounters counters = {
      .compactions = sequence.compactions,
      .evicted_tokens = sequence.evicted_slots / static_cast<int64_t>(sequence.budgets->size()),
      .blocks_freed = sequence.blocks_freed,
      .peak_kv_bytes = sequence.peak_bytes,
      .full_cache_kv_bytes = sequence.full_cache_bytes};
  output.cache += counters;
  output.preemptions += sequence.preemptions;
  stats.cache += counters;
}

// Tokens to their answers; what grew or finished goes out.
std::vector<RequestOutput> Engine::Impl::Deliver(const StepResult& result) {
  std::vector<Running*> touched;
  for (const auto& [sequence, token] : scheduler->Commit(result)) {
    auto& [running, branch] = branch_of.at(sequence);
    if (running->cancelled) continue;
    branch->answer->Add(*token);
    ++stats.generated_tokens;
    if (running->output.first_token_seconds == 0) {
      running->output.first_token_seconds = Now();
      stats.prompt_tokens += running->output.prompt_tokens;
    }
    if (std::find(touched.begin(), touched.end(), running) == touched.end()) touched.push_back(running);
  }
  std::vector<RequestOutput> outputs;
  for (Running* running : touched) {
    RequestOutput out = running->output;
    bool all_done = true;
    for (auto& branch : running->branches) {
      if (branch->answer->finished() && !branch->removed) {
        RemoveBranch(*branch);
        AddCounters(branch->sequence, running->output);
      }
      all_done = all_done && branch->removed;
    }
    if (all_done) {
      out = std::move(running->output);
      out.finished = true;
      out.finish_seconds = Now();
      for (auto& branch : running->branches) out.completions.push_back(branch->answer->whole());
      requests.erase(out.id);
    } else {
      for (auto& branch : running->branches) {
        Completion fresh = branch->answer->TakeNew();
        if (!fresh.token_ids.empty()) out.completions.push_back(std::move(fresh));
      }
    }
    outputs.push_back(std::move(out));
  }
  return outputs;
}

absl::StatusOr<std::vector<RequestOutput>> Engine::Step() {
  Impl& impl = *impl_;
  CAIRN_CHECK(impl.scheduler != nullptr, "only the leader steps");
  const double begin = impl.Now();
  while (impl.steps_in_flight < impl.groups.sizes.pp) {
    CAIRN_ASSIGN_OR_RETURN(const bool launched, impl.LaunchStep());
    if (!launched) break;
  }
  if (impl.steps_in_flight == 0) {
    if (HasWork()) return absl::InternalError("the scheduler has requests, but nothing to run and nothing in flight");
    return std::vector<RequestOutput>();
  }
  CAIRN_ASSIGN_OR_RETURN(const StepResult result, impl.FinishStep());
  std::vector<RequestOutput> outputs = impl.Deliver(result);
  impl.DropCancelled();
  impl.stats.busy_seconds += impl.Now() - begin;
  return outputs;
}

std::vector<Eviction> Engine::TakeEvictions() { return std::exchange(impl_->evictions, {}); }

absl::Status Engine::Shutdown() {
  Impl& impl = *impl_;
  while (impl.steps_in_flight > 0) {  // nobody's tokens, if the caller stops early, but they are under way
    CAIRN_RETURN_IF_ERROR(impl.FinishStep().status());
  }
  StepPlan last;
  last.shutdown = true;
  for (int rank = 1; rank < impl.groups.replica->size(); ++rank) {
    CAIRN_RETURN_IF_ERROR(impl.groups.replica->Send(rank, kPlanTag, last.Serialize()));
  }
  return absl::OkStatus();
}

absl::Status Engine::Serve() {
  Impl& impl = *impl_;
  CAIRN_CHECK(!impl.groups.is_leader(), "the leader steps, it does not serve");
  while (true) {
    CAIRN_ASSIGN_OR_RETURN(const ControlMessage message, impl.groups.replica->Recv(0, kPlanTag));
    const StepPlan plan = StepPlan::Parse(message.bytes);
    if (plan.shutdown) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(const std::optional<StepResult> result, impl.setup.runner->Run(plan));
    if (result.has_value()) {
      CAIRN_RETURN_IF_ERROR(impl.groups.replica->Send(0, kResultTag, result->Serialize()));
    }
    if (impl.records_evictions()) {
      const std::vector<Eviction> evictions = impl.setup.runner->compressor()->TakeEvictions();
      CAIRN_RETURN_IF_ERROR(impl.groups.replica->Send(0, kEvictionsTag, SerializeEvictions(evictions)));
    }
  }
}

// --- Facts ---

const ModelConfig& Engine::model_config() const { return impl_->setup.config; }
const EngineOptions& Engine::options() const { return impl_->setup.options; }
const Tokenizer* Engine::tokenizer() const { return impl_->setup.tokenizer.get(); }
int64_t Engine::max_model_len() const { return impl_->setup.options.max_model_len; }
const std::vector<RankInfo>& Engine::ranks() const { return impl_->setup.ranks; }
bool Engine::is_leader() const { return impl_->groups.is_leader(); }

KvCapacity Engine::kv_capacity() const {
  const EngineOptions& options = impl_->setup.options;
  const CacheAccountant accountant(impl_->setup.stages, options.block_size);
  KvCapacity capacity = {.tokens = accountant.MaxTokens(),
                         .full_concurrency = accountant.Concurrency(accountant.FullCache(options.max_model_len))};
  if (options.compression.enabled()) {
    const Footprint footprint(options.compression, impl_->setup.config.num_layers, impl_->setup.config.num_kv_heads);
    capacity.compressed_concurrency = accountant.Concurrency(footprint.Steady(accountant, options.max_model_len - 1));
  }
  return capacity;
}

EngineStats Engine::stats() const {
  EngineStats stats = impl_->stats;
  if (impl_->scheduler != nullptr) {
    stats.peak_running = impl_->scheduler->peak_running();
    stats.preemptions = impl_->scheduler->preemptions();
    stats.kv_blocks_total = impl_->scheduler->used().total_blocks();
    stats.kv_blocks_peak = impl_->scheduler->used().peak_used_blocks();
    stats.compression_seconds = impl_->setup.runner->compression_seconds();
    if (const DecodeGraphs* graphs = impl_->setup.runner->graphs(); graphs != nullptr) {
      stats.recorded_steps = graphs->num_recorded();
      stats.replayed_steps = graphs->num_replayed();
    }
  }
  return stats;
}

}  // namespace cairn
