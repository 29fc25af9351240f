// The whole engine with --device cuda, on the emulated GPU: the reference's tokens over every kind of sharding; its
// recorded decode steps; its memory.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/config/model_config_reader.h"
#include "engine/runner/model_runner.h"
#include "launcher/doctor_checks.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/gpu_engine.h"

namespace cairn {
namespace {

using testing::HasSubstr;

// The checkpoint's reference prompts, `tokens` greedy tokens each.
std::vector<Request> ReferenceRequests(const nlohmann::json& expected, int32_t tokens) {
  std::vector<Request> requests;
  for (const auto& c : expected["cases"]) {
    requests.push_back(
        GreedyRequest(absl::StrCat("case", requests.size()), c["prompt_ids"].get<std::vector<int32_t>>(), tokens));
    requests.back().sampling.logprobs = 1;
  }
  return requests;
}

// --- Tokens ---

struct Case {
  const char* family;
  ParallelSizes sizes;
  int32_t tokens_per_step;  // fewer than some prompts have: these come in chunks
};

class GpuTokensTest : public testing::TestWithParam<Case> {};

TEST_P(GpuTokensTest, AreTheReferences) {
  constexpr int32_t kTokens = 10;
  const Case& c = GetParam();
  const nlohmann::json expected = ReadJson(absl::StrCat(CheckpointDir(c.family), "/expected.json"));
  EngineOptions options = GpuOptions(c.family, c.sizes);
  options.max_num_batched_tokens = c.tokens_per_step;
  const HarnessResult result = AnswerWithoutRaces(options, ReferenceRequests(expected, kTokens));
  for (size_t i = 0; i < expected["cases"].size(); ++i) {
    const auto reference = expected["cases"][i]["greedy_ids"].get<std::vector<int32_t>>();
    const Completion& answer = result.outputs.at(absl::StrCat("case", i)).completions[0];
    EXPECT_EQ(answer.token_ids, std::vector<int32_t>(reference.begin(), reference.begin() + kTokens)) << i;
    for (int32_t t = 0; t < kTokens; ++t) {
      EXPECT_NEAR(answer.logprobs[t].logprob, expected["cases"][i]["greedy_logprobs"][t].get<double>(), 5e-4) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, GpuTokensTest,
                         testing::Values(Case{"llama3", {1, 1, 1}, 128}, Case{"llama3", {2, 1, 1}, 128},
                                         Case{"llama3", {1, 2, 1}, 128}, Case{"llama3", {2, 2, 1}, 24},
                                         Case{"qwen2", {2, 1, 1}, 128}, Case{"qwen3", {1, 1, 1}, 128},
                                         Case{"mistral", {1, 1, 1}, 24}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.family, "_tp", info.param.sizes.tp, "_pp",
                                               info.param.sizes.pp, "_step", info.param.tokens_per_step);
                         });

// In bfloat16, stored as such: near the CPU's, which rounds in the same places; sums over ranks in float32.
TEST(GpuEngineTest, BFloat16IsNearTheCpu) {
  EngineOptions options = GpuOptions("llama3");
  options.dtype = "bfloat16";
  ExpectNearTheCpu(options, ReferenceRequests(ReadJson(CheckpointDir("llama3") + "/expected.json"), 2), 0.05);
}

// --- Weights in 8 bits ---

// The same codes on both, sums in another order: a code of an activation may fall to the other side of a boundary.
TEST(GpuEngineTest, Float8IsNearTheCpu) {
  EngineOptions options = GpuOptions("qwen2");  // with biases
  options.quantization = "fp8";
  ExpectNearTheCpu(options, ReferenceRequests(ReadJson(CheckpointDir("qwen2") + "/expected.json"), 2), 0.1);
}

// Whether the device is asked for or found; before any weight is read.
TEST(GpuEngineTest, Int8IsRefused) {
  EngineOptions options = GpuOptions("qwen2");
  options.quantization = "int8";
  for (const char* device : {"cuda", "auto"}) {
    options.device = device;
    const absl::Status status = Engine::CreateLocal(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--quantization=int8 is for --device=cpu")) << device;
  }
}

// --- Keys and values in 8 bits ---

// The same codes on both: in float32 the CPU's tokens, with the full cache and with a compressed one, over every kind
// of sharding; decode steps recorded or not, the same bits.
TEST(GpuEngineTest, CacheInFloat8GivesTheCpusTokens) {
  std::vector<Request> requests = MixedRequests();
  for (Request& request : requests) request.sampling.temperature = 0;
  for (const char* policy : {"none", "rkv"}) {
    EngineOptions options = GpuOptions("llama3");
    options.kv_cache_dtype = "fp8";
    options.compression.algorithm = policy;
    options.compression.budget = 16;
    options.compression.buffer = 8;
    options.device = "cpu";
    const HarnessResult cpu = AnswerWithoutRaces(options, requests);
    options.device = "cuda";
    for (const ParallelSizes sizes :
         {ParallelSizes{1, 1, 1}, ParallelSizes{2, 1, 1}, ParallelSizes{1, 2, 1}, ParallelSizes{2, 2, 1}}) {
      options.parallel = sizes;
      const HarnessResult gpu = AnswerWithoutRaces(options, requests);
      for (const auto& [id, output] : cpu.outputs) {
        EXPECT_EQ(output.completions[0].token_ids, gpu.outputs.at(id).completions[0].token_ids)
            << policy << " " << id << " tp " << sizes.tp << " pp " << sizes.pp;
      }
      if (sizes.tp > 1) continue;  // these record nothing
      EXPECT_GT(gpu.stats.replayed_steps, 0);
      EngineOptions eager = options;
      eager.enforce_eager = true;
      ExpectSameBits(AnswerWithoutRaces(eager, requests), gpu);
    }
  }
}

// --- Sampling ---

// Rows of every kind beside each other: greedy and plain ones, whose logits stay where they are, and such as need them
// whole. In float32 the CPU's tokens.
TEST(GpuEngineTest, SamplesAsTheCpuDoes) {
  std::vector<Request> requests = MixedRequests();
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % 3 != 0) requests[i].sampling.logprobs.reset();
    if (i % 4 == 3) requests[i].sampling.top_p = 0.7f;
  }
  EngineOptions options = GpuOptions("qwen3");
  options.device = "cpu";
  const HarnessResult cpu = AnswerWithoutRaces(options, requests);
  options.device = "cuda";
  for (const ParallelSizes sizes : {ParallelSizes{1, 1, 1}, ParallelSizes{2, 1, 1}, ParallelSizes{1, 2, 1}}) {
    options.parallel = sizes;
    SCOPED_TRACE(absl::StrCat("tp ", sizes.tp, " pp ", sizes.pp));
    ExpectSameTokens(cpu, AnswerWithoutRaces(options, requests));
  }
}

// --- Recorded steps ---

TEST(GpuGraphsTest, ReplayedStepsGiveTheSameBits) {
  EngineOptions options = GpuOptions("qwen3");
  options.max_num_seqs = 5;  // recorded with 1, 2, 4 and 5 rows: three sequences are a step of four
  options.enforce_eager = true;
  const HarnessResult eager = AnswerWithoutRaces(options, MixedRequests());
  EXPECT_EQ(eager.stats.recorded_steps, 0);
  EXPECT_EQ(eager.stats.replayed_steps, 0);
  options.enforce_eager = false;
  const HarnessResult recorded = AnswerWithoutRaces(options, MixedRequests());
  EXPECT_EQ(recorded.stats.recorded_steps, 4);
  EXPECT_GT(recorded.stats.replayed_steps, 15);
  ExpectSameBits(eager, recorded);
}

// With pipeline stages; with ranks that share layers only where their communicator is on the stream.
TEST(GpuGraphsTest, StagesRecordRanksThatSpeakThroughTheHostDoNot) {
  EngineOptions options = GpuOptions("llama3", {1, 2, 1});
  options.enforce_eager = true;
  const HarnessResult eager = AnswerWithoutRaces(options, MixedRequests());
  options.enforce_eager = false;
  const HarnessResult recorded = AnswerWithoutRaces(options, MixedRequests());
  EXPECT_GT(recorded.stats.replayed_steps, 0);
  ExpectSameBits(eager, recorded);
  options.parallel = {2, 1, 1};
  EXPECT_EQ(AnswerWithoutRaces(options, MixedRequests()).stats.recorded_steps, 0);
}

// Beyond one span of attention a step is another kind: it is recorded when it first comes.
TEST(GpuGraphsTest, LongSequencesAreRecordedAnew) {
  EngineOptions options = GpuOptions("llama3");
  options.max_model_len = 280;
  options.max_num_seqs = 1;
  const Request request = GreedyRequest("long", MadeUpPrompt(248, 0, 11), 16);
  const HarnessResult recorded = AnswerWithoutRaces(options, {request});
  EXPECT_EQ(recorded.stats.recorded_steps, 2);
  EXPECT_EQ(recorded.stats.replayed_steps, 14);  // of the 15 decode steps the ninth was recorded
  options.device = "cpu";
  ExpectSameTokens(AnswerWithoutRaces(options, {request}), recorded);
}

// --- Memory ---

TEST(GpuMemoryTest, NothingIsAllocatedOnceTheEngineStands) {
  for (const bool eager : {false, true}) {
    EngineOptions options = GpuOptions("llama3");
    options.enforce_eager = eager;
    SCOPED_TRACE(eager ? "eager" : "recorded");
    ExpectNoAllocations(options, MixedRequests());
  }
}

// What doctor looks at: the GPU's memory, of which activations take a part, shared by the ranks of a host.
TEST(GpuMemoryTest, DoctorChecksTheGpusMemory) {
  EngineOptions options = GpuOptions("qwen2");
  cuda_emulator::SetDeviceMemory(size_t{64} << 20);
  cuda_emulator::SetDeviceCount(2);
  const SharedMemory gpu = FindMemory(options, 3);
  options.device = "cpu";
  const SharedMemory host = FindMemory(options, 3);
  cuda_emulator::SetDeviceMemory(SIZE_MAX);
  cuda_emulator::SetDeviceCount(1);
  EXPECT_FALSE(gpu.device.is_cpu());
  EXPECT_EQ(gpu.sharers, 2);
  EXPECT_TRUE(host.device.is_cpu());
  EXPECT_EQ(host.sharers, 3);
  const ModelConfig config = *ReadModelConfig(options.model);
  const auto verdict = [&](int64_t bytes) {
    return CheckMemory(options, config, {0, 4}, {}, {gpu.device, bytes, 2})[0];
  };
  EXPECT_THAT(verdict(gpu.bytes).detail,
              testing::ContainsRegex("^weights .*, activations .* on the GPU for this rank"));
  const int64_t weights = WeightBytes(config, {0, 4}, {}, {}, DType::kFloat32, Quantization::kNone, gpu.device);
  EXPECT_EQ(verdict(2 * weights).verdict, Verdict::kFail);
  EXPECT_EQ(verdict(gpu.bytes).verdict, Verdict::kOk);
}

TEST(GpuMemoryTest, TheCacheFillsTheShareThatIsAllowed) {
  EngineOptions options = GpuOptions("llama2");
  options.kv_cache_memory_bytes = 0;
  options.max_model_len = 512;
  options.max_num_seqs = 180;  // more than fit: 1.08 MB each
  options.max_num_batched_tokens = 180;
  options.enforce_eager = true;
  constexpr size_t kMemory = size_t{192} << 20;
  const ModelConfig config = *ReadModelConfig(options.model);
  for (const double share : {0.5, 0.9}) {
    for (const int ranks : {1, 2}) {  // which share the one GPU
      if (share == 0.5 && ranks == 2) continue;
      options.gpu_memory_utilization = share;
      options.parallel.pp = ranks;
      cuda_emulator::SetDeviceMemory(kMemory);
      std::vector<RankInfo> infos;
      const auto statuses = RunThreadRanks(ranks, [&](ControlChannel& world) -> absl::Status {
        CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
        CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
        if (world.rank() == 0) infos = engine->ranks();
        return world.Barrier();
      });
      for (const absl::Status& status : statuses) ASSERT_TRUE(status.ok()) << status;
      cuda_emulator::SetDeviceMemory(SIZE_MAX);
      double weights = 0, cache = 0;
      for (const RankInfo& info : infos) {
        weights += static_cast<double>(info.weight_bytes);
        cache += static_cast<double>(info.kv_blocks * info.kv_block_bytes);
      }
      // What else there is: activations, tables on their way, cuBLASLt's workspace.
      const double others = share * kMemory - weights - cache;
      EXPECT_GT(others, 0) << share << " " << ranks;
      EXPECT_LT(others, 60e6 * ranks) << share << " " << ranks;
      // Of these `cairn plan` counts the activations, and it knows the weights.
      double planned = 0, activations = 0;
      for (const RankInfo& info : infos) {
        const HeadShard heads = *ShardHeads(config.num_heads, config.num_kv_heads, 1, 0);
        planned += static_cast<double>(WeightBytes(config, info.layers, info.at, options.parallel, DType::kFloat32,
                                                   Quantization::kNone, Device{DeviceKind::kCuda, 0}));
        activations += static_cast<double>(ShapeOfSteps(config, heads, options.parallel, info.at, DType::kFloat32,
                                                        options.max_num_seqs, options.max_num_batched_tokens)
                                               .size_bytes());
      }
      EXPECT_LE(planned, weights) << ranks;
      EXPECT_GE(planned, 0.99 * weights) << ranks;  // beside the rotary frequencies
      EXPECT_GT(activations, 0.5e6) << ranks;
      EXPECT_LT(activations, others) << share << " " << ranks;
    }
  }
}

TEST(GpuMemoryTest, SaysWhatIsMissing) {
  EngineOptions options = GpuOptions("llama3");
  options.kv_cache_memory_bytes = 0;
  options.gpu_memory_utilization = 0.1;
  cuda_emulator::SetDeviceMemory(size_t{128} << 20);
  const absl::Status status = Engine::CreateLocal(options).status();
  cuda_emulator::SetDeviceMemory(SIZE_MAX);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("--gpu-memory-utilization"));
}

// Biases in the activations' type, but where they are added to a sum over ranks; 16-bit weights, and E4M3 ones.
TEST(GpuMemoryTest, APlanKnowsTheWeights) {
  for (const char* quantization : {"none", "fp8"}) {
    for (const int tp : {1, 2}) {
      EngineOptions options = GpuOptions("qwen2", {tp, 1, 1});
      options.dtype = "bfloat16";
      options.quantization = quantization;
      options.enforce_eager = true;
      const ModelConfig config = *ReadModelConfig(options.model);
      const auto statuses = RunThreadRanks(tp, [&](ControlChannel& world) -> absl::Status {
        CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
        CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
        for (const RankInfo& info : engine->ranks()) {
          const double planned =
              static_cast<double>(WeightBytes(config, info.layers, info.at, options.parallel, DType::kBFloat16,
                                              *ParseQuantization(quantization), Device{DeviceKind::kCuda, 0}));
          EXPECT_LE(planned, static_cast<double>(info.weight_bytes)) << quantization << " tp " << tp;
          EXPECT_GE(planned, 0.95 * static_cast<double>(info.weight_bytes)) << quantization << " tp " << tp;
        }
        return world.Barrier();
      });
      for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
    }
  }
}

// --- The choice of the device ---

TEST(GpuDeviceTest, AutoIsTheGpu) {
  EngineOptions options = GpuOptions("llama3");
  options.device = "auto";
  const auto engine = Engine::CreateLocal(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->options().device, "cuda");
  EXPECT_EQ((*engine)->ranks().at(0).device, "cuda:0");
}

}  // namespace
}  // namespace cairn
