#include "compression/compression_config.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "compression/scorer.h"

namespace cairn {
namespace {

using testing::HasSubstr;

TEST(CompressionConfigTest, DefaultsAreThoseOfTheSpecification) {
  const CompressionConfig config;
  EXPECT_TRUE(config.Validate().ok());
  EXPECT_FALSE(config.enabled());
  EXPECT_EQ(config.keep_scope(), KeepScope::kHead);
  EXPECT_EQ(config.mix_lambda, 0.1);
  EXPECT_EQ(config.similarity_threshold, 0.5);
  EXPECT_EQ(config.kernel_size, 7);
  EXPECT_EQ(config.pooling, "max");
  EXPECT_EQ(config.window, 8);
  EXPECT_EQ(config.buffer, 128);
  EXPECT_EQ(config.beta, 20);
  EXPECT_EQ(config.num_sinks, 4);
  EXPECT_EQ(config.recent_ratio, 0);
  EXPECT_EQ(config.gamma, 0.8);
  EXPECT_EQ(config.variant, "code");
  EXPECT_EQ(config.group_reduce, "mean");
  EXPECT_TRUE(config.prefill && config.decode && !config.bounded_prefill);
}

TEST(CompressionConfigTest, EveryAlgorithmMakesItsScorer) {
  EXPECT_EQ(AlgorithmNames(), "rkv, rkv-history, snapkv, streamingllm, h2o, keydiff, gkv, random");
  for (const char* name : {"rkv", "rkv-history", "snapkv", "streamingllm", "h2o", "keydiff", "gkv", "random"}) {
    CompressionConfig config;
    config.algorithm = name;
    EXPECT_TRUE(config.enabled() && config.Validate().ok()) << name;
    EXPECT_TRUE(IsAlgorithm(name));
    const auto scorer = MakeScorer(config);
    const bool blind =
        config.algorithm == "streamingllm" || config.algorithm == "keydiff" || config.algorithm == "random";
    EXPECT_EQ(scorer->needs_queries(), !blind) << name;
    const std::map<std::string, int> scores = {{"rkv", 1}, {"rkv-history", 2}, {"h2o", 1}, {"gkv", 1}};
    EXPECT_EQ(scorer->num_running_scores(), scores.contains(name) ? scores.at(name) : 0) << name;
    EXPECT_EQ(scorer->observes(), config.algorithm == "rkv-history") << name;
    EXPECT_EQ(scorer->num_sinks(), config.algorithm == "streamingllm" ? 4 : 0) << name;
  }
  EXPECT_FALSE(IsAlgorithm("none"));
}

TEST(CompressionConfigTest, Scopes) {
  CompressionConfig config;
  config.scope = "layer";
  EXPECT_EQ(config.keep_scope(), KeepScope::kLayer);
  config.scope = "sequence";
  EXPECT_EQ(config.keep_scope(), KeepScope::kSequence);
  EXPECT_TRUE(config.Validate().ok());
}

TEST(CompressionConfigTest, RecentSlotsAreAShareOfTheLayersAndTheWindowAtLeast) {
  CompressionConfig config;
  EXPECT_EQ(config.RecentSlots(1000), 8);
  config.recent_ratio = 0.1;
  EXPECT_EQ(config.RecentSlots(79), 8);
  EXPECT_EQ(config.RecentSlots(99), 9);
  EXPECT_EQ(config.RecentSlots(1000), 100);
  config.recent_ratio = 1;
  EXPECT_EQ(config.RecentSlots(99), 99);
}

TEST(CompressionConfigTest, AWeightForEachLayerOfTheModel) {
  CompressionConfig config;
  config.layer_weights = {1, 2, 3};
  EXPECT_TRUE(config.ValidateFor(4, 2).ok());  // not read
  config.schedule = "weighted";
  EXPECT_TRUE(config.Validate().ok());
  EXPECT_TRUE(config.ValidateFor(3, 2).ok());
  EXPECT_THAT(std::string(config.ValidateFor(4, 2).message()), HasSubstr("has 3 numbers, and the model 4 layers"));
}

TEST(CompressionConfigTest, OrForEachOfTheirKvHeads) {
  CompressionConfig config;
  config.algorithm = "rkv";
  config.head_weights = {1, 2, 3, 4, 5, 6};
  EXPECT_FALSE(config.by_head());
  config.schedule = "weighted";
  EXPECT_TRUE(config.by_head());
  EXPECT_TRUE(config.Validate().ok());
  EXPECT_TRUE(config.ValidateFor(3, 2).ok());
  EXPECT_THAT(std::string(config.ValidateFor(6, 4).message()),
              HasSubstr("--kv-head-weights: has 6 numbers, and the model 6 layers of 4 KV heads"));
  config.algorithm = "none";
  EXPECT_FALSE(config.by_head());
}

TEST(CompressionConfigTest, RefusalsNameTheFlag) {
  struct Case {
    const char* message;
    std::function<void(CompressionConfig&)> set;
  };
  const Case cases[] = {
      {"--kv-compression=rvk: must be one of none, rkv, rkv-history, snapkv, ", [](auto& c) { c.algorithm = "rvk"; }},
      {"--kv-schedule=cone: must be one of uniform, pyramid, weighted", [](auto& c) { c.schedule = "cone"; }},
      {"--kv-scope=model: must be one of head, layer, sequence", [](auto& c) { c.scope = "model"; }},
      {"--kv-pooling=mean: must be one of max, avg", [](auto& c) { c.pooling = "mean"; }},
      {"--kv-group-reduce=avg: must be one of mean, max, sum", [](auto& c) { c.group_reduce = "avg"; }},
      {"--kv-variant=prose: must be one of code, paper", [](auto& c) { c.variant = "prose"; }},
      {"--kv-kernel=6: must be odd", [](auto& c) { c.kernel_size = 6; }},
      {"--kv-kernel=-1: must be odd", [](auto& c) { c.kernel_size = -1; }},
      {"--kv-buffer=7: must be at least --kv-window=8", [](auto& c) { c.buffer = 7; }},
      {"--kv-buffer=-5: must be", [](auto& c) { c.buffer = -5; }},
      {"--kv-budget=8: must be more than --kv-window=8", [](auto& c) { c.budget = 8; }},
      {"--kv-budget=-1: must be", [](auto& c) { c.budget = -1; }},
      {"--kv-window=0: must be", [](auto& c) { c.window = 0; }},
      {"--kv-lambda=1.5: must be between 0 and 1", [](auto& c) { c.mix_lambda = 1.5; }},
      {"--kv-lambda=-0.1: must be between 0 and 1", [](auto& c) { c.mix_lambda = -0.1; }},
      {"--kv-lambda=nan: must be between 0 and 1", [](auto& c) { c.mix_lambda = std::nan(""); }},
      {"--kv-threshold=2: must be between -1 and 1", [](auto& c) { c.similarity_threshold = 2; }},
      {"--kv-beta=0.5: must be between 1 and", [](auto& c) { c.beta = 0.5; }},
      {"--kv-beta=inf: must be between 1 and", [](auto& c) { c.beta = INFINITY; }},
      {"--kv-recent-ratio=1.1: must be between 0 and 1", [](auto& c) { c.recent_ratio = 1.1; }},
      {"--kv-gamma=1.1: must be between 0 and 1", [](auto& c) { c.gamma = 1.1; }},
      {"--kv-sinks=-1: must be between 0 and", [](auto& c) { c.num_sinks = -1; }},
      {"--kv-scope=sequence: must be head or layer with --kv-schedule=pyramid",
       [](auto& c) { c.scope = "sequence", c.schedule = "pyramid"; }},
      {"--kv-scope=sequence: must be head or layer with --kv-schedule=weighted",
       [](auto& c) { c.scope = "sequence", c.schedule = "weighted", c.layer_weights = {1}; }},
      {"--kv-schedule=weighted: needs --kv-layer-weights", [](auto& c) { c.schedule = "weighted"; }},
      {"or --kv-head-weights, one for each of its KV heads; not both",
       [](auto& c) { c.schedule = "weighted", c.layer_weights = c.head_weights = {1}; }},
      {"--kv-scope=layer: must be head with --kv-head-weights",
       [](auto& c) { c.algorithm = "rkv", c.scope = "layer", c.schedule = "weighted", c.head_weights = {1}; }},
      {"--kv-head-weights=-1: must be between 0 and",
       [](auto& c) {
         c.head_weights = {1, -1};
       }},
      {"--kv-layer-weights=-1: must be between 0 and",
       [](auto& c) {
         c.layer_weights = {1, -1};
       }},
      {"--kv-layer-weights=nan: must be between 0 and", [](auto& c) { c.layer_weights = {std::nan("")}; }},
      {"--kv-layer-weights=0,0: must be more than 0 somewhere",
       [](auto& c) {
         c.layer_weights = {0, 0};
       }},
      {"--kv-prefill=false: must be true with --kv-decode=false", [](auto& c) { c.prefill = c.decode = false; }},
      {"--kv-bounded-prefill=true: must be false with --kv-decode=false",
       [](auto& c) { c.bounded_prefill = true, c.decode = false; }},
      {"--kv-bounded-prefill=true: must be false with --kv-prefill=false",
       [](auto& c) { c.bounded_prefill = true, c.prefill = false; }},
  };
  for (const Case& c : cases) {
    CompressionConfig config;
    config.algorithm = "rkv";
    c.set(config);
    const absl::Status status = config.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace cairn
