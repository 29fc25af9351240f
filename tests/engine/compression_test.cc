// Compression in whole engines: nothing moves an event or changes a kept set but the sequence itself, memory is bounded
// and really freed, and ranks that disagree stop the job.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "compression/budget.h"
#include "kernels/core/kv_view.h"
#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

constexpr const char* kPolicies[] = {"rkv", "rkv-history", "snapkv", "streamingllm", "h2o", "keydiff", "gkv", "random"};

CompressionConfig Config(const std::string& algorithm, int32_t budget, int32_t buffer) {
  CompressionConfig config;
  config.algorithm = algorithm;
  config.budget = budget;
  config.buffer = buffer;
  return config;
}

EngineOptions Options(const std::string& family, const CompressionConfig& config, ParallelSizes sizes = {}) {
  EngineOptions options = TestOptions(CheckpointDir(family), sizes);
  options.compression = config;
  options.record_evictions = true;
  options.max_num_seqs = 8;
  return options;
}

// Of four layers of two KV heads.
void WeighHeads(CompressionConfig& config) {
  config.schedule = "weighted";
  config.layer_weights.clear();
  config.head_weights = {1, 3, 0, 2, 2, 0, 1, 1};
}

// What this head keeps, with budgets of layers or of heads.
int32_t BudgetOf(const CompressionConfig& config, const std::vector<int32_t>& budgets, const Eviction& e) {
  return budgets[config.by_head() ? 2 * e.layer + e.kv_head : e.layer];
}

Request RandomRequest(std::mt19937& rng, const std::string& id, int prompt, int answer) {
  std::vector<int32_t> ids(prompt);
  for (int32_t& token : ids) token = static_cast<int32_t>(rng() % 290);
  Request request = GreedyRequest(id, ids, answer);
  request.sampling.logprobs = 1;
  return request;
}

std::vector<Request> RandomRequests(int seed, int count, int longest_prompt, int longest_answer) {
  std::mt19937 rng(seed);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back(
        RandomRequest(rng, absl::StrCat("r", i), 1 + rng() % longest_prompt, 1 + rng() % longest_answer));
    requests.back().sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
  }
  return requests;
}

// (request, answer, logical length, layer, head) -> positions kept.
using Kept = std::map<std::tuple<std::string, int, int64_t, int, int>, std::vector<int32_t>>;

Kept KeptSets(const HarnessResult& result) {
  Kept kept;
  for (const Eviction& e : result.evictions) {
    kept[{e.request_id, e.index, e.logical_length, e.layer, e.kv_head}] = e.positions;
  }
  EXPECT_EQ(kept.size(), result.evictions.size()) << "a set was recorded twice";
  return kept;
}

void ExpectSameAnswers(const HarnessResult& a, const HarnessResult& b, const std::string& label) {
  ASSERT_EQ(a.outputs.size(), b.outputs.size()) << label;
  for (const auto& [id, output] : a.outputs) {
    const RequestOutput& other = b.outputs.at(id);
    for (size_t n = 0; n < output.completions.size(); ++n) {
      ASSERT_EQ(output.completions[n].token_ids, other.completions[n].token_ids) << label << " " << id;
      for (size_t i = 0; i < output.completions[n].logprobs.size(); ++i) {
        ASSERT_EQ(output.completions[n].logprobs[i].logprob, other.completions[n].logprobs[i].logprob)
            << label << " " << id << " token " << i;
      }
    }
    EXPECT_EQ(output.cache.compactions, other.cache.compactions) << label << " " << id;
    EXPECT_EQ(output.cache.evicted_tokens, other.cache.evicted_tokens) << label << " " << id;
  }
}

class PolicyTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, PolicyTest, testing::ValuesIn(kPolicies), [](const auto& info) {
  return absl::StrReplaceAll(info.param, {{"-", "_"}});
});

// --- Nothing but the sequence itself counts ---

TEST_P(PolicyTest, ABudgetBeyondTheSequenceIsTheFullCache) {
  const std::vector<Request> requests = RandomRequests(1, 6, 60, 60);
  const HarnessResult full = Answer(Options("qwen3", {}), requests);
  for (const char* scope : {"head", "layer", "sequence"}) {
    CompressionConfig config = Config(GetParam(), 128, 16);
    config.scope = scope;
    const HarnessResult compressed = Answer(Options("qwen3", config), requests);
    ExpectSameAnswers(full, compressed, scope);
    EXPECT_EQ(compressed.stats.cache.compactions, 0);
    EXPECT_TRUE(compressed.evictions.empty());
  }
}

// Neighbours, order of arrival, chunks, block sizes, threads and stages change no bit of an answer and no kept set.
TEST_P(PolicyTest, SameSetsWhateverRunsBeside) {
  for (const char* scope : {"head", "layer", "sequence", "head with budgets of its own"}) {
    CompressionConfig config = Config(GetParam(), 24, 12);
    config.scope = std::string(scope).substr(0, std::string(scope).find(' '));
    if (config.scope != "sequence") config.schedule = "pyramid";
    if (config.scope != scope) WeighHeads(config);
    std::vector<Request> requests = RandomRequests(2, 12, 70, 60);
    EngineOptions options = Options("qwen3", config);
    options.max_num_seqs = 1;  // each alone
    const HarnessResult alone = Answer(options, requests);
    const Kept expected = KeptSets(alone);
    EXPECT_GT(alone.stats.cache.compactions, 12);
    std::mt19937 rng(3);
    for (int round = 0; round < 5; ++round) {
      std::shuffle(requests.begin(), requests.end(), rng);
      options.max_num_seqs = 2 + static_cast<int32_t>(rng() % 12);
      options.max_num_batched_tokens = options.max_num_seqs + static_cast<int32_t>(rng() % 9);  // chunks below a window
      options.block_size = 1 + static_cast<int32_t>(rng() % 20);
      options.threads = 1 + round % 2;
      options.parallel.pp = 1 + round % 3;
      const std::string label = absl::StrCat(scope, " round ", round, " pp ", options.parallel.pp, " seqs ",
                                             options.max_num_seqs, " tokens ", options.max_num_batched_tokens);
      const HarnessResult result = Answer(options, requests);
      ExpectSameAnswers(alone, result, label);
      EXPECT_EQ(KeptSets(result), expected) << label;
      EXPECT_EQ(result.stats.preemptions, 0) << label;
    }
  }
}

// What rkv-history keeps comes of the windows on the way: the same tokens given as a prompt have shown it the last one
// alone, which is all that rkv looks at.
TEST(CompressionTest, HistoryHasSeenTheWindowsOnTheWay) {
  for (const char* algorithm : {"rkv", "rkv-history"}) {
    CompressionConfig config = Config(algorithm, 24, 24);  // the first event at 48 tokens, windows from 16 on
    config.mix_lambda = 1;
    std::mt19937 rng(8);
    const Request decoded = RandomRequest(rng, "r", 12, 40);
    const HarnessResult slowly = Answer(Options("qwen3", config), {decoded});
    Request read = decoded;
    const std::vector<int32_t>& answer = slowly.outputs.at("r").completions[0].token_ids;
    read.prompt_ids.insert(read.prompt_ids.end(), answer.begin(), answer.begin() + 35);
    read.sampling.max_tokens = 5;
    const HarnessResult at_once = Answer(Options("qwen3", config), {read});
    const Kept kept = KeptSets(at_once), expected = KeptSets(slowly);
    ASSERT_EQ(kept.size(), 8u);  // heads and layers, one event
    int differing = 0;
    for (const auto& [key, positions] : kept) differing += expected.at(key) != positions;
    EXPECT_EQ(differing > 0, std::string(algorithm) == "rkv-history") << differing << " of 8 differ";
  }
}

// 64 and more at once, places reused many times: what a slot map that is one step late would corrupt.
TEST(CompressionTest, AFullBatchEqualsOneByOne) {
  const std::vector<Request> requests = RandomRequests(4, 150, 40, 50);
  EngineOptions options = Options("llama3", Config("rkv", 16, 10));
  options.max_num_seqs = 1;
  const HarnessResult alone = Answer(options, requests);
  options.max_num_seqs = 100;
  options.max_num_batched_tokens = 120;
  const HarnessResult together = Answer(options, requests);
  EXPECT_GE(together.stats.peak_running, 64);
  ExpectSameAnswers(alone, together, "150 requests");
  EXPECT_EQ(KeptSets(alone), KeptSets(together));
}

// Without decode events the budgets hang on each prompt's length: whoever had the place before.
TEST(CompressionTest, PromptBudgetsFollowEachPrompt) {
  for (const char* schedule : {"pyramid", "weighted", "of heads"}) {
    CompressionConfig config = Config("snapkv", 16, 8);
    config.decode = false;
    config.schedule = schedule;
    config.layer_weights = {1, 3, 0, 2};
    if (schedule == std::string("of heads")) WeighHeads(config);
    const std::vector<Request> requests = RandomRequests(15, 24, 60, 12);
    EngineOptions options = Options("llama3", config);
    options.max_num_seqs = 1;
    const HarnessResult alone = Answer(options, requests);
    options.max_num_seqs = 7;
    const HarnessResult together = Answer(options, requests);
    ExpectSameAnswers(alone, together, "24 prompts");
    EXPECT_EQ(KeptSets(alone), KeptSets(together));
    EXPECT_GT(alone.evictions.size(), 50u);
    for (const Eviction& e : alone.evictions) {  // an event comes when the prompt has been read
      const std::vector<int32_t> budgets =
          AllocatePromptBudgets(config, NumBudgets(config, 4, 2), static_cast<int32_t>(e.logical_length));
      ASSERT_EQ(static_cast<int32_t>(e.positions.size()), BudgetOf(config, budgets, e))
          << "a prompt of " << e.logical_length;
    }
  }
}

// One prompt, several answers: each has its own cache, and none's compaction shows in another.
TEST(CompressionTest, AnswersToOnePromptDoNotShareWhatTheyKeep) {
  std::mt19937 rng(5);
  Request request = RandomRequest(rng, "n", 50, 60);
  request.sampling.temperature = 1;
  request.sampling.n = 3;
  const EngineOptions options = Options("qwen3", Config("rkv", 20, 10));
  const HarnessResult three = Answer(options, {request});
  request.sampling.n = 1;
  const HarnessResult one = Answer(options, {request});
  EXPECT_EQ(three.outputs.at("n").completions[0].token_ids, one.outputs.at("n").completions[0].token_ids);
  const Kept kept = KeptSets(three);
  for (const auto& [key, positions] : KeptSets(one)) EXPECT_EQ(kept.at(key), positions);
}

// --- Ranks ---

// Two KV heads on up to four ranks, in stages too. Sums over ranks run in another order, so keys differ in their last
// bits and a near-tie may fall the other way: at least 99 % of the slots agree.
TEST_P(PolicyTest, SameSetsOverRanks) {
  const std::vector<Request> requests = {RandomRequests(6, 1, 60, 1)[0]};
  for (const char* scope : {"head", "layer", "sequence", "head with budgets of its own"}) {
    CompressionConfig config = Config(GetParam(), 24, 12);
    config.scope = std::string(scope).substr(0, std::string(scope).find(' '));
    if (config.scope != scope) WeighHeads(config);
    std::mt19937 rng(6);
    const std::vector<Request> one = {RandomRequest(rng, "r", 60, 50)};
    const Kept expected = KeptSets(Answer(Options("qwen2", config), one));
    ASSERT_FALSE(expected.empty());
    for (const ParallelSizes sizes : {ParallelSizes{2, 1, 1}, ParallelSizes{4, 1, 1}, ParallelSizes{1, 2, 1},
                                      ParallelSizes{2, 2, 1}, ParallelSizes{4, 2, 1}}) {
      const Kept found = KeptSets(Answer(Options("qwen2", config, sizes), one));
      const std::string label = absl::StrCat(GetParam(), " ", scope, " tp ", sizes.tp, " pp ", sizes.pp);
      ASSERT_EQ(found.size(), expected.size()) << label;
      int64_t same = 0, all = 0;
      for (const auto& [key, positions] : expected) {
        std::vector<int32_t> common;
        const std::vector<int32_t>& other = found.at(key);
        ASSERT_EQ(other.size(), positions.size()) << label;
        std::set_intersection(positions.begin(), positions.end(), other.begin(), other.end(),
                              std::back_inserter(common));
        same += static_cast<int64_t>(common.size());
        all += static_cast<int64_t>(positions.size());
      }
      EXPECT_GE(static_cast<double>(same), 0.99 * static_cast<double>(all)) << label;
      if (sizes.tp == 1) {
        EXPECT_EQ(found, expected) << label;  // stages change no bit
      }
    }
  }
}

TEST_P(PolicyTest, ScopesShareOneSet) {
  for (const char* scope : {"layer", "sequence"}) {
    CompressionConfig config = Config(GetParam(), 24, 12);
    config.scope = scope;
    std::map<std::pair<int64_t, int>, std::set<std::vector<int32_t>>> sets;
    for (const Eviction& e : Answer(Options("qwen2", config, {2, 2, 1}), RandomRequests(7, 1, 60, 60)).evictions) {
      sets[{e.logical_length, config.scope == "layer" ? e.layer : 0}].insert(e.positions);
    }
    EXPECT_FALSE(sets.empty());
    for (const auto& [key, different] : sets) EXPECT_EQ(different.size(), 1u) << scope;
  }
}

// A tp group in which one rank receives something else than was sent.
class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator(std::unique_ptr<Communicator> inner, bool faulty) : inner_(std::move(inner)), faulty_(faulty) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  absl::Status AllReduce(const Tensor& data, ReduceOp op) override {
    const absl::Status status = inner_->AllReduce(data, op);
    // Scores are int64: a few good tokens become bad ones.
    if (faulty_ && data.dtype() == DType::kInt64)
      std::fill_n(data.data<int64_t>(), data.num_elements() / 2, -(int64_t{1} << 40));
    return status;
  }
  absl::Status AllGather(const Tensor& in, const Tensor& out) override {
    const absl::Status status = inner_->AllGather(in, out);
    if (faulty_ && out.dtype() == DType::kFloat32) std::fill_n(out.data<float>(), out.num_elements(), 1.0f);
    return status;
  }
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override { return inner_->Gather(in, out, root); }
  absl::Status Broadcast(const Tensor& data, int root) override { return inner_->Broadcast(data, root); }
  absl::Status Send(const Tensor& data, int destination) override { return inner_->Send(data, destination); }
  absl::Status Recv(const Tensor& data, int source) override { return inner_->Recv(data, source); }

 private:
  std::unique_ptr<Communicator> inner_;
  bool faulty_;
};

TEST(CompressionTest, RanksThatDisagreeStopTheJobWithinTheStep) {
  for (const auto& [scope, tp] : {std::pair("head", 4), std::pair("layer", 2), std::pair("sequence", 2)}) {
    CompressionConfig config = Config("rkv", 24, 12);
    config.scope = scope;
    const EngineOptions options = Options("qwen2", config, {tp, 2, 1});
    int64_t tokens = 0;
    const auto body = [&](ControlChannel& world) -> absl::Status {
      CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
      const bool faulty = groups.at.tp == 1 && groups.at.pp == 1;
      groups.tp = std::make_unique<FaultyCommunicator>(std::move(groups.tp), faulty);
      CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
      const auto stop = [&](absl::Status status) {
        world.Abort(70, std::string(status.message()));  // as the launcher does
        return status;
      };
      if (!engine->is_leader()) {
        const absl::Status served = engine->Serve();
        return served.ok() ? served : stop(served);
      }
      std::mt19937 rng(8);
      CAIRN_RETURN_IF_ERROR(engine->Add(RandomRequest(rng, "the-request", 20, 100)));
      while (engine->HasWork()) {
        const auto outputs = engine->Step();
        if (!outputs.ok()) return stop(outputs.status());
        tokens = engine->stats().generated_tokens;
      }
      return engine->Shutdown();
    };
    bool named = false;
    for (const absl::Status& status : RunThreadRanks(options.parallel.world(), body, /*timeout_seconds=*/30)) {
      EXPECT_FALSE(status.ok()) << scope;
      // The second stage's ranks are tp .. 2 tp - 1; its layers are 2 and 3.
      named = named || (status.message().find(absl::StrCat("ranks ", tp, " and ", tp + 1)) != std::string::npos &&
                        status.message().find("request 'the-request'") != std::string::npos &&
                        (scope == std::string("sequence") || status.message().find("layer 2 of") != std::string::npos));
    }
    EXPECT_TRUE(named) << scope;
    EXPECT_LE(tokens, 24 + 12 - 20 + 1) << scope << ": went on after its first event";
  }
}

// --- Memory ---

void ExpectAscendingToTheLastTokens(const CompressionConfig& config) {
  const std::vector<int32_t> budgets = AllocateBudgets(config, NumBudgets(config, 4, 2));
  const HarnessResult result = Answer(Options("qwen3", config), RandomRequests(9, 4, 50, 80));
  EXPECT_GT(result.evictions.size(), 4u * 4 * 2);
  for (const Eviction& e : result.evictions) {
    const int32_t budget = BudgetOf(config, budgets, e);
    ASSERT_EQ(static_cast<int32_t>(e.positions.size()), budget);
    ASSERT_TRUE(std::is_sorted(e.positions.begin(), e.positions.end(), std::less_equal<>()));
    const int32_t recent = std::max(config.window, static_cast<int32_t>(config.recent_ratio * budget));
    for (int i = 1; i <= recent; ++i) ASSERT_EQ(e.positions[budget - i], e.logical_length - i) << "layer " << e.layer;
  }
}

TEST_P(PolicyTest, WhatIsKeptIsAscendingAndEndsInTheLastTokens) {
  for (const double ratio : {0.0, 0.6, 1.0}) {
    CompressionConfig config = Config(GetParam(), 20, 10);
    config.recent_ratio = ratio;
    config.layer_weights = {1, 3, 0, 2};
    for (const char* schedule : {"uniform", "pyramid", "weighted"}) {
      config.schedule = schedule;
      ExpectAscendingToTheLastTokens(config);
    }
    WeighHeads(config);
    ExpectAscendingToTheLastTokens(config);
    config.schedule = "uniform";
    for (const char* scope : {"layer", "sequence"}) {
      config.scope = scope;
      ExpectAscendingToTheLastTokens(config);
    }
  }
}

// Blocks of a request in steady state, over all layers, or KV heads with budgets of their own.
int64_t SteadyBlocks(const CompressionConfig& config, int layers, int block) {
  int64_t blocks = 0;
  for (const int32_t budget : AllocateBudgets(config, NumBudgets(config, layers, 2)))
    blocks += (budget + config.buffer + block - 1) / block;
  return blocks;
}

TEST(CompressionTest, ARequestNeverHoldsMoreThanBudgetAndBuffer) {
  for (const char* schedule : {"uniform", "pyramid", "weighted", "of heads"}) {
    for (const int block : {1, 4, 16}) {
      CompressionConfig config = Config("rkv", 24, 8);
      config.schedule = schedule;
      config.layer_weights = {1, 3, 0, 2};
      if (schedule == std::string("of heads")) WeighHeads(config);
      EngineOptions options = Options("qwen3", config);
      options.block_size = block;
      std::mt19937 rng(10);
      const HarnessResult result = Answer(options, {RandomRequest(rng, "r", 5, 300)});
      const int64_t block_bytes =
          result.outputs.at("r").cache.full_cache_kv_bytes / (NumBudgets(config, 4, 2) * ((304 + block - 1) / block));
      EXPECT_EQ(result.stats.kv_blocks_peak, SteadyBlocks(config, 4, block)) << schedule << " block " << block;
      EXPECT_EQ(result.outputs.at("r").cache.peak_kv_bytes, result.stats.kv_blocks_peak * block_bytes);
      if (block < 16) {  // 24 and 32 slots take as many blocks of 16
        EXPECT_GT(result.outputs.at("r").cache.blocks_freed, 0);
      }
    }
  }
}

// Budgets of heads that are those of their layers keep what these keep, and lose as much of it.
TEST_P(PolicyTest, EqualHeadsAreTheLayers) {
  if (GetParam() == std::string("random")) GTEST_SKIP() << "draws other numbers";
  CompressionConfig config = Config(GetParam(), 24, 12);
  config.schedule = "weighted";
  config.layer_weights = {1, 3, 0, 2};
  EngineOptions options = Options("qwen2", config);
  options.shadow_full = true;
  const std::vector<Request> requests = RandomRequests(16, 5, 60, 60);
  const HarnessResult by_layer = Answer(options, requests);
  options.compression.layer_weights.clear();
  options.compression.head_weights = {1, 1, 3, 3, 0, 0, 2, 2};
  const HarnessResult by_head = Answer(options, requests);
  EXPECT_GT(by_layer.stats.cache.compactions, 5);
  ExpectSameAnswers(by_layer, by_head, GetParam());
  EXPECT_EQ(KeptSets(by_layer), KeptSets(by_head));
  const auto losses = [](const HarnessResult& result) {
    std::map<std::tuple<std::string, int64_t, int, int>, std::pair<float, float>> all;
    for (const Eviction& e : result.evictions) {
      all[{e.request_id, e.logical_length, e.layer, e.kv_head}] = {e.mass_lost, e.output_error};
    }
    return all;
  };
  EXPECT_EQ(losses(by_layer), losses(by_head));
}

// One of two tp ranks holds the heads that keep nearly all: its pool decides how many requests run.
TEST(CompressionTest, TheRankOfTheLargestHeadsAdmits) {
  CompressionConfig config = Config("rkv", 32, 16);
  config.schedule = "weighted";
  config.head_weights = {1, 0, 1, 0, 1, 0, 1, 0};
  EngineOptions options = Options("qwen3", config, {2, 1, 1});
  constexpr int kRequests = 20;
  options.max_num_seqs = kRequests;
  options.record_evictions = false;
  const KvBlockLayout layout = {
      .kv_heads = 1, .head_dim = 32, .block_size = 16, .dtype = DType::kFloat32, .num_scores = 1};
  const int64_t rings = int64_t{kRequests} * 4 * 8 * 2 * 32 * sizeof(float);
  constexpr int kFit = 7;
  const int64_t largest = 4 * ((8 + 1 + 2 * (32 - 8 - 1) + 16 + 15) / 16);  // blocks of a request on that rank
  options.kv_cache_memory_bytes = kFit * largest * static_cast<int64_t>(layout.block_bytes()) + rings;
  std::vector<Request> requests;
  std::mt19937 rng(17);
  for (int i = 0; i < kRequests; ++i) requests.push_back(RandomRequest(rng, absl::StrCat("r", i), 10, 200));
  const HarnessResult result = Answer(options, requests);
  EXPECT_EQ(result.stats.peak_running, kFit);
  EXPECT_EQ(result.stats.preemptions, 0);
  EXPECT_EQ(result.stats.kv_blocks_peak, kFit * largest);
}

// A pool of four uncompressed requests runs what the arithmetic allows, without ever taking one back; the full cache
// runs four.
TEST(CompressionTest, FreedBlocksAdmitMoreRequests) {
  const CompressionConfig config = Config("rkv", 32, 16);
  EngineOptions options = Options("qwen3", config);
  constexpr int kLength = 400, kRequests = 60;
  const KvBlockLayout layout = {
      .kv_heads = 2, .head_dim = 32, .block_size = 16, .dtype = DType::kFloat32, .num_scores = 1};
  const int64_t blocks = 4 * 4 * (kLength / 16);
  const int64_t rings = int64_t{kRequests} * 4 * 8 * 4 * 32 * sizeof(float);
  options.max_num_seqs = kRequests;
  options.record_evictions = false;
  std::vector<Request> requests;
  std::mt19937 rng(11);
  for (int i = 0; i < kRequests; ++i) requests.push_back(RandomRequest(rng, absl::StrCat("r", i), 10, kLength - 10));
  options.kv_cache_memory_bytes = blocks * static_cast<int64_t>(layout.block_bytes()) + rings;
  const HarnessResult compressed = Answer(options, requests);
  EXPECT_EQ(compressed.stats.peak_running, blocks / SteadyBlocks(config, 4, 16));  // 33
  EXPECT_EQ(compressed.stats.preemptions, 0);
  EXPECT_LE(compressed.stats.kv_blocks_peak, blocks);
  options.compression = {};
  KvBlockLayout plain = layout;
  plain.num_scores = 0;
  options.kv_cache_memory_bytes = blocks * static_cast<int64_t>(plain.block_bytes());
  options.max_model_len = kLength;
  const HarnessResult full = Answer(options, requests);
  EXPECT_GT(full.stats.preemptions, 0);
  EXPECT_GT(full.stats.steps, 3 * compressed.stats.steps);
}

// Prompts that are longer than the budgets hold the pool only until their event: then others are admitted.
TEST(CompressionTest, BlocksOfCompressedPromptsAreGivenAwayAtOnce) {
  const CompressionConfig config = Config("snapkv", 16, 16);
  EngineOptions options = Options("qwen3", config);
  const KvBlockLayout layout = {.kv_heads = 2, .head_dim = 32, .block_size = 16, .dtype = DType::kFloat32};
  options.max_num_seqs = 16;
  // A prompt of 256 tokens takes 16 blocks a layer, 2 once it is compressed: 20 hold one prompt and two such.
  options.kv_cache_memory_bytes = 20 * 4 * static_cast<int64_t>(layout.block_bytes()) + 16 * 4 * 8 * 4 * 32 * 4;
  std::vector<Request> requests;
  std::mt19937 rng(12);
  for (int i = 0; i < 5; ++i) requests.push_back(RandomRequest(rng, absl::StrCat("r", i), 256, 40));
  const HarnessResult result = Answer(options, requests);
  EXPECT_EQ(result.stats.peak_running, 3);
  EXPECT_EQ(result.stats.preemptions, 0);
  // A prompt that never fits is refused with the numbers and the way out, and the way out works.
  requests = {RandomRequest(rng, "long", 400, 40)};
  const absl::StatusOr<HarnessResult> refused = RunEngine(options, requests);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_NE(refused.status().message().find("--kv-bounded-prefill"), std::string::npos) << refused.status();
  options.compression.bounded_prefill = true;
  EXPECT_EQ(Answer(options, requests).outputs.at("long").completions[0].token_ids.size(), 40u);
}

TEST_P(PolicyTest, ABoundedPrefillNeverHoldsMoreAndKeepsTheSameSetsForEveryChunkSize) {
  for (const char* scope : {"head", "sequence"}) {
    CompressionConfig config = Config(GetParam(), 20, 10);
    config.bounded_prefill = true;
    config.scope = scope;
    EngineOptions options = Options("qwen3", config);
    options.block_size = 5;
    std::mt19937 rng(13);
    const std::vector<Request> requests = {RandomRequest(rng, "a", 200, 40), RandomRequest(rng, "b", 35, 20)};
    options.max_num_seqs = 1;
    const HarnessResult alone = Answer(options, requests);
    EXPECT_EQ(alone.stats.kv_blocks_peak, 4 * 30 / 5);
    EXPECT_EQ(alone.outputs.at("a").cache.compactions, (200 + 39 - 20) / 10);
    for (const int chunk : {3, 7, 64}) {
      options.max_num_seqs = 2;
      options.max_num_batched_tokens = chunk;
      const HarnessResult chunked = Answer(options, requests);
      ExpectSameAnswers(alone, chunked, absl::StrCat(scope, " chunk ", chunk));
      EXPECT_EQ(KeptSets(alone), KeptSets(chunked)) << scope << " chunk " << chunk;
    }
  }
}

// The last queries of every sequence that may run are part of the memory that the cache is given.
TEST(CompressionTest, QueryRingsAreCounted) {
  EngineOptions options = Options("qwen3", Config("rkv", 24, 12));
  options.max_num_seqs = 64;
  const int64_t rings = int64_t{64} * 4 * 8 * 4 * 32 * sizeof(float);
  options.kv_cache_memory_bytes = rings + (100 << 10);
  const KvBlockLayout layout = {
      .kv_heads = 2, .head_dim = 32, .block_size = 16, .dtype = DType::kFloat32, .num_scores = 1};
  const HarnessResult result = Answer(options, RandomRequests(14, 1, 5, 5));
  EXPECT_EQ(result.stats.kv_blocks_total, (100 << 10) / static_cast<int64_t>(layout.block_bytes()));
  options.kv_cache_memory_bytes = rings;
  EXPECT_NE(RunEngine(options, {}).status().message().find("for the last queries of 64 sequences"), std::string::npos);
}

TEST(CompressionTest, BadSettingsAreNamed) {
  CompressionConfig config = Config("rkv", 24, 4);
  EXPECT_NE(RunEngine(Options("llama3", config), {}).status().message().find("--kv-buffer"), std::string::npos);
  config = Config("rkv", 1000, 100);
  EngineOptions options = Options("llama3", config);
  options.kv_cache_memory_bytes = 300 << 10;  // less than one request's bound
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 16;
  config.budget = 400;
  options.compression = config;
  const absl::Status status = RunEngine(options, {}).status();
  EXPECT_NE(status.message().find("--kv-budget=400"), std::string::npos) << status;
}

}  // namespace
}  // namespace cairn
