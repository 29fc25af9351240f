// --kv-cache-dtype=fp8 through whole engines on CPU: nothing but the sequence itself counts, with the full cache and
// with compressed ones; the same memory holds nearly twice the tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/cache/cache_size.h"
#include "engine/config/model_config_reader.h"
#include "kernels/core/kv_view.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/weights/safetensors_file_builder.h"

namespace cairn {
namespace {

EngineOptions Options(const std::string& family, const std::string& policy = "none", ParallelSizes sizes = {}) {
  EngineOptions options = TestOptions(CheckpointDir(family), sizes);
  options.kv_cache_dtype = "fp8";
  options.max_num_seqs = 8;
  options.compression.algorithm = policy;
  options.compression.budget = 24;
  options.compression.buffer = 12;
  options.record_evictions = policy != "none";
  return options;
}

std::vector<Request> Requests(int count, int longest_prompt, int longest_answer) {
  std::mt19937 rng(5);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t> prompt(1 + rng() % longest_prompt);
    for (int32_t& id : prompt) id = static_cast<int32_t>(rng() % 290);
    requests.push_back(GreedyRequest(absl::StrCat("r", i), prompt, 1 + static_cast<int32_t>(rng() % longest_answer)));
    requests.back().sampling.logprobs = 1;
    requests.back().sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
  }
  return requests;
}

std::vector<std::pair<std::string, std::vector<int32_t>>> KeptSets(const HarnessResult& result) {
  std::vector<std::pair<std::string, std::vector<int32_t>>> kept;
  for (const Eviction& e : result.evictions) {
    kept.emplace_back(absl::StrCat(e.request_id, " ", e.logical_length, " ", e.layer, " ", e.kv_head), e.positions);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

void ExpectSameBits(const HarnessResult& a, const HarnessResult& b, const std::string& label) {
  ASSERT_EQ(a.outputs.size(), b.outputs.size()) << label;
  for (const auto& [id, output] : a.outputs) {
    const Completion &one = output.completions[0], &other = b.outputs.at(id).completions[0];
    ASSERT_EQ(one.token_ids, other.token_ids) << label << " " << id;
    for (size_t t = 0; t < one.logprobs.size(); ++t) {
      ASSERT_EQ(one.logprobs[t].logprob, other.logprobs[t].logprob) << label << " " << id << " token " << t;
    }
  }
  EXPECT_EQ(KeptSets(a), KeptSets(b)) << label;
}

class KvCacheDtypeTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, KvCacheDtypeTest,
                         testing::Values("none", "rkv", "rkv-history", "snapkv", "streamingllm", "h2o", "keydiff",
                                         "gkv"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{"-", "_"}});
                         });

// A key is its code for everyone, also for the tokens of its own chunk: chunks, blocks, neighbours, threads and stages
// change no bit.
TEST_P(KvCacheDtypeTest, SameBitsWhateverRunsBeside) {
  std::vector<Request> requests = Requests(10, 70, 50);
  EngineOptions options = Options("qwen3", GetParam());
  options.dtype = "bfloat16";
  options.max_num_seqs = 1;  // each alone
  const HarnessResult alone = Answer(options, requests);
  if (options.record_evictions) {
    EXPECT_GT(alone.stats.cache.compactions, 10);
  }
  std::mt19937 rng(3);
  for (int round = 0; round < 3; ++round) {
    std::shuffle(requests.begin(), requests.end(), rng);
    options.max_num_seqs = 2 + static_cast<int32_t>(rng() % 8);
    options.max_num_batched_tokens = options.max_num_seqs + static_cast<int32_t>(rng() % 9);
    options.block_size = 1 + static_cast<int32_t>(rng() % 20);
    options.threads = 1 + round % 2;
    options.parallel.pp = 1 + round % 3;
    ExpectSameBits(alone, Answer(options, requests), absl::StrCat("round ", round));
  }
}

// Sums over tp ranks differ in their last bits, which moves a key to another code now and then: tokens are compared.
TEST_P(KvCacheDtypeTest, SameTokensOverRanks) {
  std::vector<Request> requests = Requests(6, 60, 40);
  for (Request& request : requests) request.sampling.temperature = 0;
  const HarnessResult one = Answer(Options("llama3", GetParam()), requests);
  for (const ParallelSizes sizes :
       {ParallelSizes{2, 1, 1}, ParallelSizes{1, 2, 1}, ParallelSizes{2, 2, 1}, ParallelSizes{1, 1, 2}}) {
    const HarnessResult other = Answer(Options("llama3", GetParam(), sizes), requests);
    for (const auto& [id, output] : one.outputs) {
      EXPECT_EQ(output.completions[0].token_ids, other.outputs.at(id).completions[0].token_ids)
          << id << " tp " << sizes.tp << " pp " << sizes.pp << " dp " << sizes.dp;
    }
  }
}

// A key loses at most a sixteenth of each element: the logits move by some per cent.
TEST(KvCacheDtypeTest, AnswersAreNearThoseOfTheWholeCache) {
  std::vector<Request> requests = Requests(6, 60, 1);
  for (Request& request : requests) request.sampling.temperature = 0;
  for (const char* family : {"llama3", "qwen3"}) {
    EngineOptions options = Options(family);
    const HarnessResult fp8 = Answer(options, requests);
    options.kv_cache_dtype = "fp8_e4m3";
    ExpectSameBits(fp8, Answer(options, requests), "the other name");
    options.kv_cache_dtype = "auto";
    const HarnessResult whole = Answer(options, requests);
    double difference = 0;
    for (const auto& [id, output] : whole.outputs) {
      difference +=
          std::abs(output.completions[0].logprobs[0].logprob - fp8.outputs.at(id).completions[0].logprobs[0].logprob) /
          6;
    }
    EXPECT_GT(difference, 0) << family << ": nothing was rounded";
    EXPECT_LT(difference, 0.3) << family;
  }
}

// Blocks of half the bytes, but for the positions: the pool, what is admitted and what answers are said to hold.
TEST(KvCacheDtypeTest, TheSameMemoryHoldsNearlyTwiceTheTokens) {
  const ModelConfig config = *ReadModelConfig(CheckpointDir("llama3"));
  const HeadShard heads = *ShardHeads(config.num_heads, config.num_kv_heads, 1, 0);
  EngineOptions options = Options("llama3");
  options.max_num_seqs = 64;
  options.kv_cache_memory_bytes = 1 << 20;
  options.dtype = "bfloat16";
  int64_t tokens[2], bytes[2], running[2];
  for (const bool fp8 : {false, true}) {
    options.kv_cache_dtype = fp8 ? "fp8" : "auto";
    const CacheLayers layers({}, {0, config.num_layers}, heads, config.num_kv_heads);
    const CacheSize size = *SizeCache(config, options, layers, DType::kBFloat16, 4096, options.kv_cache_memory_bytes);
    const size_t plane = static_cast<size_t>(2 * 16 * config.head_dim) * (fp8 ? 1 : 2);
    EXPECT_EQ(size.layout.block_bytes(), 2 * plane + 2 * 16 * sizeof(int32_t));
    EXPECT_EQ(size.num_blocks, (1 << 20) / static_cast<int64_t>(size.layout.block_bytes()));
    const auto engine = Engine::CreateLocal(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    tokens[fp8] = (*engine)->kv_capacity().tokens;
    EXPECT_EQ(tokens[fp8], size.num_blocks / config.num_layers * 16);
    std::vector<Request> requests;
    for (int i = 0; i < 40; ++i) {
      requests.push_back(GreedyRequest(absl::StrCat("r", i), std::vector<int32_t>(90, 3 + i), 6));
    }
    const HarnessResult result = Answer(options, requests);
    running[fp8] = result.stats.peak_running;
    bytes[fp8] = result.outputs.at("r0").cache.peak_kv_bytes;
  }
  EXPECT_GT(tokens[1], tokens[0] * 18 / 10);
  EXPECT_GT(running[1], running[0] * 17 / 10);
  EXPECT_LT(bytes[1], bytes[0] * 55 / 100);
}

TEST(KvCacheDtypeTest, TheShadowIsOfTheCodesToo) {
  EngineOptions options = Options("qwen3", "rkv");
  options.shadow_full = true;
  const HarnessResult result = Answer(options, Requests(3, 60, 40));
  double lost = 0;
  for (const Eviction& eviction : result.evictions) {
    EXPECT_TRUE(eviction.mass_lost >= 0 && eviction.mass_lost < 1) << eviction.mass_lost;
    lost += eviction.mass_lost;
  }
  EXPECT_GT(lost, 0);
}

// --- Refusals ---

TEST(KvCacheDtypeTest, AnUnknownNameIsRefused) {
  EngineOptions options = Options("llama3");
  options.kv_cache_dtype = "fp8_e5m2";
  const absl::StatusOr<HarnessResult> result = RunEngine(options, {});
  ASSERT_FALSE(result.ok());
  EXPECT_TRUE(absl::StrContains(result.status().message(),
                                "--kv-cache-dtype=fp8_e5m2: allowed is auto (the activations' type) or fp8 (E4M3)"))
      << result.status();
}

// A checkpoint in fp8 with scales for a cache: left alone where the cache is not in fp8.
TEST(KvCacheDtypeTest, ScalesOfACheckpointAreRefused) {
  TempModel model("llama3");
  SafetensorsParts parts(ReadText(model.File("model.safetensors")));
  const size_t at = parts.data.size();
  parts.header["model.layers.0.self_attn.k_scale"] = {
      {"dtype", "F32"}, {"shape", nlohmann::json::array()}, {"data_offsets", {at, at + 4}}};
  parts.data += std::string("\0\0\0\x40", 4);
  model.Write("model.safetensors", parts.Bytes());
  model.Edit("config.json", [](nlohmann::json& config) {
    config["quantization_config"] = {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}};
  });
  EngineOptions options = Options("llama3");
  options.model = model.path();
  const absl::StatusOr<HarnessResult> result = RunEngine(options, {});
  ASSERT_FALSE(result.ok());
  EXPECT_TRUE(absl::StrContains(result.status().message(), "model.layers.0.self_attn.k_scale, a scale"))
      << result.status();
  options.kv_cache_dtype = "auto";
  EXPECT_TRUE(RunEngine(options, {}).ok());
}

}  // namespace
}  // namespace cairn
