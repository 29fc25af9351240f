#include "engine/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>

#include "engine/cache/kv_cache.h"

namespace cairn {
namespace {

// A cache that holds `blocks` blocks of 4 tokens in each of 2 layers.
CacheAccountant Blocks(int64_t blocks) {
  return CacheAccountant({{.num_blocks = 2 * blocks, .layers = Range{0, 2}, .bytes_per_block = 1}}, 4);
}

Scheduler MakeScheduler(const SchedulerOptions& options, const CacheAccountant& accountant) {
  return Scheduler(options, accountant, Footprint({}, 2, 1));
}

std::vector<Sequence> MakeSequences(const std::vector<int>& prompt_lengths) {
  std::vector<Sequence> sequences(prompt_lengths.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].tokens.assign(prompt_lengths[i], 100 + static_cast<int32_t>(i));
    sequences[i].spec.prompt_length = prompt_lengths[i];
  }
  return sequences;
}

// What a model would answer: a token for every sequence that samples.
StepResult Answer(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  for (const SequenceStep& step : plan.sequences) {
    if (step.sample) result.tokens.push_back({step.sequence, {.token = 7, .logprob = 0, .top = {}}});
  }
  return result;
}

TEST(SchedulerTest, DecodesFirstThenChunksThenAdmitsWithinTheBudget) {
  std::vector<Sequence> sequences = MakeSequences({3, 10, 4});
  Scheduler scheduler = MakeScheduler({.max_num_seqs = 4, .max_num_batched_tokens = 8}, Blocks(100));
  for (Sequence& sequence : sequences) scheduler.Add(&sequence);

  StepPlan plan = *scheduler.Next();  // 3 + the first 5 of 10
  ASSERT_EQ(plan.sequences.size(), 2u);
  EXPECT_TRUE(plan.sequences[0].sample);
  EXPECT_EQ(plan.sequences[1].tokens.size(), 5u);
  EXPECT_FALSE(plan.sequences[1].sample);
  scheduler.Commit(Answer(plan));

  plan = *scheduler.Next();  // one decode, the other 5, the first 2 of 4
  ASSERT_EQ(plan.sequences.size(), 3u);
  EXPECT_EQ(plan.sequences[0].tokens, std::vector<int32_t>{7});
  EXPECT_EQ(plan.sequences[0].position, 3);
  EXPECT_EQ(plan.sequences[1].position, 5);
  EXPECT_TRUE(plan.sequences[1].sample);
  EXPECT_EQ(plan.sequences[2].tokens.size(), 2u);
  EXPECT_EQ(plan.num_tokens(), 8);
}

TEST(SchedulerTest, NothingIsReadyWhileTokensAreUnderWay) {
  std::vector<Sequence> sequences = MakeSequences({3});
  Scheduler scheduler = MakeScheduler({.max_num_seqs = 4, .max_num_batched_tokens = 8}, Blocks(100));
  scheduler.Add(&sequences[0]);
  const StepPlan plan = *scheduler.Next();
  EXPECT_FALSE(scheduler.Next().has_value());
  scheduler.Commit(Answer(plan));
  EXPECT_TRUE(scheduler.Next().has_value());
}

TEST(SchedulerTest, SpreadsDecodingOverThePipeline) {
  std::vector<Sequence> sequences = MakeSequences({1, 1, 1, 1, 1, 1, 1, 1});
  Scheduler scheduler =
      MakeScheduler({.max_num_seqs = 8, .max_num_batched_tokens = 64, .pipeline_stages = 4}, Blocks(100));
  for (Sequence& sequence : sequences) scheduler.Add(&sequence);
  scheduler.Commit(Answer(*scheduler.Next()));
  for (int micro_batch = 0; micro_batch < 4; ++micro_batch) {
    const std::optional<StepPlan> plan = scheduler.Next();
    ASSERT_TRUE(plan.has_value());
    EXPECT_EQ(plan->sequences.size(), 2u);
  }
  EXPECT_FALSE(scheduler.Next().has_value());
}

TEST(SchedulerTest, PreemptsTheNewestAndResumesIt) {
  std::vector<Sequence> sequences = MakeSequences({8, 8});
  Scheduler scheduler = MakeScheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, Blocks(5));
  for (Sequence& sequence : sequences) scheduler.Add(&sequence);
  std::optional<StepPlan> plan = scheduler.Next();
  ASSERT_EQ(plan->sequences.size(), 2u);
  scheduler.Commit(Answer(*plan));
  plan = scheduler.Next();  // each needs a third block, one is left: the newer goes
  ASSERT_EQ(plan->sequences.size(), 1u);
  EXPECT_EQ(plan->closes, std::vector<int32_t>{sequences[1].spec.sequence});
  EXPECT_EQ(sequences[1].preemptions, 1);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  scheduler.Commit(Answer(*plan));
  scheduler.Remove(&sequences[0]);
  plan = scheduler.Next();  // fed again from the start, its own token included
  ASSERT_EQ(plan->sequences.size(), 1u);
  EXPECT_EQ(plan->sequences[0].position, 0);
  EXPECT_EQ(plan->sequences[0].tokens.size(), 9u);
  EXPECT_TRUE(plan->sequences[0].sample);
}

// Random arrivals, lengths, pool sizes, stages and delays: every sequence ends, each step keeps the budget, positions
// follow on, no handle is used twice, and the pool is empty at the end.
TEST(SchedulerTest, RandomRunsAlwaysEnd) {
  std::mt19937 rng(5);
  for (int round = 0; round < 60; ++round) {
    const int count = 1 + rng() % 30;
    std::vector<int> prompts, answers;
    for (int i = 0; i < count; ++i) {
      prompts.push_back(1 + rng() % 40);
      answers.push_back(1 + rng() % 30);
    }
    std::vector<Sequence> sequences = MakeSequences(prompts);
    const SchedulerOptions options = {.max_num_seqs = 1 + static_cast<int>(rng() % 8),
                                      .max_num_batched_tokens = 8 + static_cast<int>(rng() % 40),
                                      .pipeline_stages = 1 + static_cast<int>(rng() % 4)};
    Scheduler scheduler = MakeScheduler(options, Blocks(18 + rng() % 30));
    for (Sequence& sequence : sequences) scheduler.Add(&sequence);
    std::map<int32_t, int32_t> open;  // handle -> tokens fed
    std::deque<StepPlan> in_flight;
    int finished = 0, steps = 0;
    while (finished < count) {
      ASSERT_LT(++steps, 20000);
      std::optional<StepPlan> plan;
      if (static_cast<int>(in_flight.size()) < options.pipeline_stages) plan = scheduler.Next();
      if (plan.has_value()) {
        ASSERT_LE(plan->num_tokens(), options.max_num_batched_tokens);
        for (int32_t handle : plan->closes) ASSERT_EQ(open.erase(handle), 1u);
        for (const OpenSequence& o : plan->opens) ASSERT_TRUE(open.emplace(o.sequence, 0).second);
        for (const SequenceStep& step : plan->sequences) {
          ASSERT_EQ(open.at(step.sequence), step.position);
          open[step.sequence] += static_cast<int32_t>(step.tokens.size());
        }
        in_flight.push_back(*plan);
        if (rng() % 2 == 0) continue;
      }
      ASSERT_FALSE(in_flight.empty()) << "nothing to run and nothing under way";
      for (const auto& [sequence, token] : scheduler.Commit(Answer(in_flight.front()))) {
        const size_t i = sequence - sequences.data();
        if (static_cast<int>(sequence->tokens.size()) == prompts[i] + answers[i]) {
          scheduler.Remove(sequence);
          ++finished;
        }
      }
      in_flight.pop_front();
    }
    EXPECT_EQ(scheduler.used().used_blocks(), 0);
  }
}

// The same with compression of every kind: the scheduler's count of blocks is at every step what a cache holds that
// carries the plans out, the pool is never exceeded, nobody is preempted, and no layer ever has more than its budget
// and the buffer once it has been compressed.
TEST(SchedulerTest, CompressedRunsNeverOutgrowThePool) {
  std::mt19937 rng(17);
  int64_t compactions = 0, deferred = 0;
  for (int round = 0; round < 150; ++round) {
    CompressionConfig config;
    config.algorithm = "streamingllm";
    config.window = 2 + rng() % 4;
    config.budget = config.window + 3 + rng() % 20;
    config.buffer = config.window + rng() % 20;
    config.scope = rng() % 3 == 0 ? "sequence" : "head";
    config.schedule = config.scope == "head" && rng() % 2 == 0 ? "pyramid" : "uniform";
    config.prefill = rng() % 2 == 0;
    config.decode = rng() % 5 != 0;
    config.bounded_prefill = config.decode && rng() % 3 == 0;
    constexpr int kLayers = 5, kBlock = 4;
    const Footprint footprint(config, kLayers, 1);
    const SchedulerOptions options = {.max_num_seqs = 1 + static_cast<int>(rng() % 8),
                                      .max_num_batched_tokens = 8 + static_cast<int>(rng() % 40),
                                      .pipeline_stages = 1 + static_cast<int>(rng() % 3)};
    const int64_t pool = kLayers * (30 + rng() % 40);
    const CacheAccountant accountant({{.num_blocks = pool, .layers = Range{0, kLayers}, .bytes_per_block = 1}}, kBlock);
    Scheduler scheduler(options, accountant, footprint);
    std::vector<int> prompts, answers;
    for (int i = 0; i < 25; ++i) {
      const int prompt = 1 + rng() % 60, answer = 1 + rng() % 50;
      if (!scheduler.CanEverRun(prompt, prompt + answer - 1)) continue;
      prompts.push_back(prompt);
      answers.push_back(answer);
    }
    std::vector<Sequence> sequences = MakeSequences(prompts);
    for (size_t i = 0; i < sequences.size(); ++i) {
      sequences[i].max_fed = prompts[i] + answers[i] - 1;
      scheduler.Add(&sequences[i]);
    }
    KvCache cache = *KvCache::Create({}, {.kv_heads = 1, .head_dim = 4, .block_size = kBlock}, {}, kLayers, pool,
                                     options.max_num_seqs);
    const std::unique_ptr<Context> context = Context::Cpu(1, DType::kFloat32);
    std::map<int32_t, int32_t> prompt_of;
    const auto keep_last = [&](int32_t handle, int layer, int32_t keep) {
      std::vector<int32_t> kept(keep);
      for (int32_t i = 0; i < keep; ++i) kept[i] = cache.physical_length(handle, layer) - keep + i;
      cache.Compact(*context, {{handle, layer}}, Tensor(kept.data(), DType::kInt32, {1, keep}), {keep});
    };
    // What every rank does with a plan; what the last stage answers.
    const auto carry_out = [&](const StepPlan& plan) {
      for (int32_t handle : plan.closes) cache.Close(handle);
      for (const Compaction& compaction : plan.compactions) {
        ++deferred;
        for (int l = 0; l < kLayers; ++l) {
          keep_last(compaction.sequence, l, static_cast<int32_t>(compaction.kept.size()));
        }
        cache.FreeTails(compaction.sequence);
      }
      for (const OpenSequence& open : plan.opens) {
        cache.Open(open.sequence);
        prompt_of[open.sequence] = open.prompt_length;
      }
      StepResult result = Answer(plan);
      for (const SequenceStep& step : plan.sequences) {
        cache.Append(step.sequence, static_cast<int>(step.tokens.size()));
      }
      for (const SequenceStep& step : plan.sequences) {
        if (!step.compress) continue;
        ++compactions;
        const Budgets budgets = footprint.BudgetsFor(prompt_of[step.sequence]);
        if (config.scope == "sequence") {
          result.compactions.push_back({step.sequence, std::vector<int32_t>((*budgets)[0])});
          continue;
        }
        for (int l = 0; l < kLayers; ++l) {
          if (cache.physical_length(step.sequence, l) > (*budgets)[l]) keep_last(step.sequence, l, (*budgets)[l]);
        }
        cache.FreeTails(step.sequence);
      }
      return result;
    };
    std::deque<StepResult> in_flight;
    size_t finished = 0;
    int steps = 0;
    while (finished < sequences.size()) {
      ASSERT_LT(++steps, 20000);
      std::optional<StepPlan> plan;
      if (static_cast<int>(in_flight.size()) < options.pipeline_stages) plan = scheduler.Next();
      if (plan.has_value()) {
        in_flight.push_back(carry_out(*plan));  // CHECKs that the pool is not empty
        if (rng() % 2 == 0) continue;
      }
      ASSERT_FALSE(in_flight.empty()) << "nothing to run and nothing under way";
      for (const auto& [sequence, token] : scheduler.Commit(in_flight.front())) {
        const size_t i = sequence - sequences.data();
        if (static_cast<int>(sequence->tokens.size()) != prompts[i] + answers[i]) continue;
        scheduler.Remove(sequence);
        ++finished;
        EXPECT_EQ(sequence->preemptions, 0);
        EXPECT_LE(sequence->peak_bytes, pool);
      }
      in_flight.pop_front();
    }
    for (int32_t handle : scheduler.TakeCloses()) cache.Close(handle);
    EXPECT_EQ(scheduler.used().used_blocks(), 0);
    EXPECT_EQ(cache.pool().num_used(), 0);
    EXPECT_LE(cache.pool().peak_used(), pool);
    EXPECT_EQ(cache.pool().peak_used(), scheduler.used().peak_used_blocks());
  }
  EXPECT_GT(compactions, 1000);
  EXPECT_GT(deferred, 100);
}

TEST(StepPlanTest, SurvivesTheWire) {
  StepPlan plan;
  plan.step = 12;
  plan.closes = {3, 1};
  plan.compactions = {{.sequence = 7, .kept = {0, 4, 5}}};
  plan.opens.push_back({.sequence = 2,
                        .request_id = "a request",
                        .sampler = {.seed = 9, .temperature = 0.5f},
                        .prompt_length = 4,
                        .masked_tokens = {1, 2},
                        .history = {5, 6, 7}});
  plan.sequences.push_back({.sequence = 2, .position = 10, .tokens = {8, 9}, .sample = true, .compress = true});
  plan.sequences.push_back({.sequence = 3, .observe = true});
  const StepPlan read = StepPlan::Parse(plan.Serialize());
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.closes, plan.closes);
  EXPECT_EQ(read.opens[0].sampler.temperature, 0.5f);
  EXPECT_EQ(read.opens[0].masked_tokens, plan.opens[0].masked_tokens);
  EXPECT_EQ(read.opens[0].history, plan.opens[0].history);
  EXPECT_EQ(read.sequences[0].tokens, plan.sequences[0].tokens);
  EXPECT_TRUE(read.sequences[0].sample);
  EXPECT_TRUE(read.sequences[0].compress && !read.sequences[0].observe);
  EXPECT_TRUE(read.sequences[1].observe && !read.sequences[1].compress);
  EXPECT_EQ(read.opens[0].request_id, "a request");
  EXPECT_EQ(read.compactions[0].sequence, 7);
  EXPECT_EQ(read.compactions[0].kept, plan.compactions[0].kept);
  StepResult result = {.step = 4, .tokens = {{1, {.token = 3, .logprob = -0.5f, .top = {{3, -0.5f}, {4, -1.5f}}}}}};
  result.compactions = plan.compactions;
  const StepResult back = StepResult::Parse(result.Serialize());
  EXPECT_EQ(back.tokens[0].sampled.top, result.tokens[0].sampled.top);
  EXPECT_EQ(back.tokens[0].sampled.token, 3);
  EXPECT_EQ(back.compactions[0].kept, plan.compactions[0].kept);
}

}  // namespace
}  // namespace cairn
