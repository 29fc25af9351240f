// Every golden file with scores, on every instruction set and on a GPU, with float32 and with bf16 caches (the inputs
// are exact in both): scores within 1e-5, sets and fingerprints exact.
#include <bit>
#include <utility>

#include "compression/scorer.h"
#include "kernels/ops/kv_scores.h"
#include "tests/compression/golden.h"
#include "tests/compression/layer.h"

namespace cairn {
namespace {

class GoldenScoresTest : public testing::TestWithParam<std::tuple<Backend, DType>> {
 protected:
  void SetUp() override {
    ChooseBackend(std::get<0>(GetParam()));
    if (!IsSkipped()) context_ = ContextOf(std::get<0>(GetParam()), 2, DType::kFloat32);
  }
  DType dtype() const { return std::get<1>(GetParam()); }
  std::shared_ptr<Context> context_;

  // A layer that holds keys [n, kv_heads, d].
  Layer LayerOf(const GoldenArray<float>& k, int num_scores = 0, int block_size = 16) {
    Layer layer(*context_, static_cast<int>(k.dim(1)), static_cast<int>(k.dim(2)), static_cast<int32_t>(k.dim(0)),
                dtype(), num_scores, block_size);
    layer.Append(*context_, k.values, 0, static_cast<int32_t>(k.dim(0)));
    return layer;
  }

  // Scores `got`, then the sets that are selected from them.
  void ExpectScores(const std::vector<float>& got, const GoldenArray<float>& scores, int num_first = 0) {
    ASSERT_EQ(got.size(), scores.values.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (static_cast<int64_t>(i) % scores.dim(1) < num_first) continue;
      ASSERT_NEAR(got[i], scores.values[i], 1e-5) << "head " << i / scores.dim(1) << " slot " << i % scores.dim(1);
    }
  }
  void ExpectSets(const std::vector<std::vector<int32_t>>& got, const Json& kept, const Json& fingerprints) {
    EXPECT_EQ(got, kept.get<Sets>());
    EXPECT_EQ(FingerprintsOf(*context_, got), Fingerprints(fingerprints));
  }
  // FNV-1a over the fingerprints' bytes is FNV-1a over their halves as int32.
  std::string PlanFingerprint(const std::vector<std::vector<int32_t>>& sets) {
    std::vector<int32_t> halves;
    for (uint64_t fingerprint : FingerprintsOf(*context_, sets)) {
      halves.push_back(static_cast<int32_t>(fingerprint));
      halves.push_back(static_cast<int32_t>(fingerprint >> 32));
    }
    return absl::StrCat(absl::Hex(FingerprintsOf(*context_, {halves})[0], absl::kZeroPad16));
  }
};

INSTANTIATE_TEST_SUITE_P(BackendAndCache, GoldenScoresTest,
                         testing::Combine(testing::ValuesIn(TestedBackends()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param).name, "_", DTypeName(std::get<1>(info.param)));
                         });

CompressionConfig ConfigOf(const std::string& algorithm, const Json& params) {
  CompressionConfig config;
  config.algorithm = algorithm;
  config.window = params.value("window", config.window);
  config.kernel_size = params.value("kernel", config.kernel_size);
  config.similarity_threshold = params.value("threshold", config.similarity_threshold);
  config.mix_lambda = params.value("lambda", config.mix_lambda);
  config.gamma = params.value("gamma", config.gamma);
  config.num_sinks = params.value("sinks", config.num_sinks);
  config.variant = params.value("variant", config.variant);
  config.pooling = params.value("pool", config.pooling);
  config.group_reduce = params.value("reduce", config.group_reduce);
  return config;
}

TEST_P(GoldenScoresTest, Rkv) {
  for (const char* name : {"rkv_basic", "rkv_gqa4", "rkv_gqa3_odd", "rkv_shared_offset", "rkv_lonely_keys"}) {
    SCOPED_TRACE(name);
    const Json golden = ReadGolden(name);
    const Json &params = golden["params"], &expected = golden["expected"];
    const GoldenArray<float> q = Floats(golden["inputs"]["q"]), k = Floats(golden["inputs"]["k"]);
    const Layer layer = LayerOf(k);
    const int window = params["window"];
    const float threshold = params["threshold"];
    const int64_t H = k.dim(1), m = k.dim(0) - window;
    std::vector<float> importance(H * m), pooled(H * m), queries = q.values;
    Operands on(*context_);
    const Tensor i = on.F32(importance).Reshape({H, m}), p = on.F32(pooled).Reshape({H, m});
    WindowImportance(*context_, {layer.View()}, on.F32(queries).Reshape({window, q.dim(1), q.dim(2)}),
                     static_cast<int>(window), i);
    PoolSlots(*context_, i, {static_cast<int32_t>(m)}, Pooling::kMax, params["kernel"], p);
    on.Fetch();
    ExpectScores(pooled, Floats(expected["I"]));
    for (const auto& [variant, r] : expected["R"].items()) {
      SCOPED_TRACE(variant);
      KeyRedundancy(*context_, {layer.View()}, window, threshold,
                    variant == "paper" ? RedundancyVariant::kPaper : RedundancyVariant::kCode, false, p);
      on.Fetch();
      ExpectScores(pooled, Floats(r));
    }
    ASSERT_GE(expected["runs"].size(), 1);
    for (const Json& run : expected["runs"]) {
      SCOPED_TRACE(absl::StrCat(run["variant"].get<std::string>(), " ", run["lambda"].get<double>()));
      CompressionConfig config = ConfigOf("rkv", params);
      config.variant = run["variant"];
      config.mix_lambda = run["lambda"];
      const std::vector<float> z = layer.Scores(*context_, *MakeScorer(config), q.values, window);
      ExpectScores(z, Floats(run["Z"]));
      const auto kept = Select(*context_, z, H, window, run["keep"]);
      ExpectSets(kept, run["kept"], run["fingerprints"]);
      EXPECT_EQ(PlanFingerprint(kept), run["plan_fingerprint"]);
    }
  }
}

TEST_P(GoldenScoresTest, EdgeCases) {
  const Json golden = ReadGolden("edge_cases");
  ASSERT_EQ(golden["expected"]["cases"].size(), 10);
  for (const Json& c : golden["expected"]["cases"]) {
    SCOPED_TRACE(c["text"].get<std::string>());
    const GoldenArray<float> q = Floats(c["q"]), k = Floats(c["k"]);
    const int window = c["window"];
    const int64_t n = k.dim(0), keep = c["keep"];
    if (n <= window) {  // never compressed: all is kept
      ASSERT_EQ(c["kept"].get<Sets>()[0].size(), static_cast<size_t>(n));
      continue;
    }
    const Layer layer = LayerOf(k, false, 5);
    CompressionConfig config = ConfigOf("rkv", golden["params"]);
    config.window = window;
    const std::vector<float> z = layer.Scores(*context_, *MakeScorer(config), q.values, window);
    ExpectScores(z, Floats(c["Z"]));
    ExpectSets(Select(*context_, z, k.dim(1), window, keep), c["kept"], c["fingerprints"]);
  }
}

TEST_P(GoldenScoresTest, SnapKv) {
  const Json golden = ReadGolden("snapkv");
  const GoldenArray<float> q = Floats(golden["inputs"]["q"]), k = Floats(golden["inputs"]["k"]);
  const int window = golden["params"]["window"];
  const int64_t H = k.dim(1), d = k.dim(2), G = q.dim(1) / H, m = k.dim(0) - window;
  const Layer layer = LayerOf(k);
  // Each query head alone: a group of one.
  const GoldenArray<float> sums = Floats(golden["expected"]["window_sums"]);
  for (int64_t g = 0; g < G; ++g) {
    std::vector<float> queries, out(H * m);
    for (int64_t r = 0; r < window; ++r) {
      for (int64_t h = 0; h < H; ++h) {
        const auto from = q.values.begin() + (r * q.dim(1) + h * G + g) * d;
        queries.insert(queries.end(), from, from + d);
      }
    }
    Operands on(*context_);
    WindowAttention(*context_, {layer.View()}, on.F32(queries).Reshape({window, H, d}), WindowReduce::kSumOfHeads,
                    window, on.F32(out).Reshape({H, m}));
    on.Fetch();
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t i = 0; i < m; ++i) ASSERT_NEAR(out[h * m + i], sums.values[(h * G + g) * m + i], 1e-5);
    }
  }
  int runs = 0;
  for (const Json& run : golden["expected"]["runs"]) {
    if (run["granularity"] != "kv_head") continue;  // one set per query head: of the published code alone
    SCOPED_TRACE(run["pool"].get<std::string>() + " " + run["reduce"].get<std::string>());
    const auto scorer = MakeScorer(ConfigOf("snapkv", run));
    const std::vector<float> scores = layer.Scores(*context_, *scorer, q.values, window);
    ExpectScores(scores, Floats(run["score"]));
    ExpectSets(Select(*context_, scores, H, window, run["keep"]), run["kept"], run["fingerprints"]);
    ++runs;
  }
  EXPECT_GE(runs, 4);
}

// Several compactions of one layer, new tokens in between: what stays, in which order, and the running scores.
TEST_P(GoldenScoresTest, Rounds) {
  for (const char* name : {"rkv_rounds", "other_policies"}) {
    const Json golden = ReadGolden(name);
    const Json& params = golden["params"];
    const GoldenArray<float> k = Floats(golden["inputs"]["k_by_position"]);
    const GoldenArray<float> q = Floats(golden["inputs"]["q_by_round"]);
    const int budget = params["budget"], buffer = params["buffer"], window = params["window"];
    for (const std::string policy : params["policies"]) {
      SCOPED_TRACE(policy);
      CompressionConfig config = ConfigOf(policy, params);
      if (policy == "gkv_redundancy") {
        config.algorithm = "gkv";
        config.gkv_redundancy = true;
      }
      const auto scorer = MakeScorer(config);
      Layer layer(*context_, static_cast<int>(k.dim(1)), static_cast<int>(k.dim(2)), budget + buffer, dtype(),
                  scorer->num_running_scores(), 7);
      int32_t fed = budget + buffer;
      layer.Append(*context_, k.values, 0, fed);
      const Json& rounds = golden["expected"][policy];
      ASSERT_EQ(rounds.size(), params["rounds"]);
      for (size_t round = 0; round < rounds.size(); ++round) {
        SCOPED_TRACE(absl::StrCat("round ", round));
        const Json& expected = rounds[round];
        const std::vector<float> scores =
            layer.Scores(*context_, *scorer, q[static_cast<int64_t>(round)].values, window);
        ExpectScores(scores, Floats(expected["score"]), scorer->num_sinks());
        const auto kept = Select(*context_, scores, k.dim(1), window, budget, scorer->num_sinks());
        ExpectSets(kept, expected["kept"], expected["fingerprints"]);
        layer.Compact(*context_, kept);
        const KvView view = layer.HostView();
        const Sets positions = expected["positions"];
        for (int h = 0; h < view.layout.kv_heads; ++h) {
          for (int32_t slot = 0; slot < budget; ++slot) {
            ASSERT_EQ(*view.position(h, slot), positions[h][slot]);
            ASSERT_EQ(ReadElement(dtype(), view.v(h, slot), 0), static_cast<float>(positions[h][slot]));
            ASSERT_EQ(ReadElement(dtype(), view.k(h, slot), 3),
                      k.values[(positions[h][slot] * k.dim(1) + h) * k.dim(2) + 3]);
          }
        }
        if (expected.contains("state")) {
          const GoldenArray<float> state = Floats(expected["state"]);
          for (int h = 0; h < view.layout.kv_heads; ++h) {
            for (int32_t slot = 0; slot < state.dim(1); ++slot) {
              ASSERT_NEAR(*view.score(h, slot), state.values[h * state.dim(1) + slot], 1e-5) << slot;
            }
          }
        }
        if (round + 1 == rounds.size()) break;
        layer.Append(*context_, k.values, fed, fed + buffer);
        fed += buffer;
      }
    }
  }
}

// One set per head, per layer and for all layers: sums in fixed point.
TEST_P(GoldenScoresTest, Scopes) {
  const Json golden = ReadGolden("rkv_scopes");
  const Json& expected = golden["expected"];
  const GoldenArray<float> q = Floats(golden["inputs"]["q"]), k = Floats(golden["inputs"]["k"]);
  const auto scorer = MakeScorer(ConfigOf("rkv", golden["params"]));
  const int window = golden["params"]["window"];
  const int64_t keep = golden["params"]["keep"], H = k.dim(2);
  const Sets all_heads(H);
  Sets head_sets, layer_sets;
  std::vector<float> all;
  for (int64_t l = 0; l < k.dim(0); ++l) {
    const std::vector<float> z = LayerOf(k[l]).Scores(*context_, *scorer, q[l].values, window);
    ExpectScores(z, Floats(expected["Z"])[l]);
    all.insert(all.end(), z.begin(), z.end());
    for (auto& set : Select(*context_, z, H, window, keep)) head_sets.push_back(set);
    const auto layer_set = Select(*context_, SumOfRows(*context_, z, H), 1, window, keep)[0];
    for (int64_t h = 0; h < H; ++h) layer_sets.push_back(layer_set);
  }
  const auto sequence_set = Select(*context_, SumOfRows(*context_, all, H * k.dim(0)), 1, window, keep)[0];
  const Sets sequence_sets(H * k.dim(0), sequence_set);
  for (const auto& [scope, sets] :
       {std::pair<std::string, Sets>{"head", head_sets}, {"layer", layer_sets}, {"sequence", sequence_sets}}) {
    SCOPED_TRACE(scope);
    Sets flat;
    for (const Sets layer : expected[absl::StrCat("kept_", scope)]) flat.insert(flat.end(), layer.begin(), layer.end());
    EXPECT_EQ(sets, flat);
    EXPECT_EQ(PlanFingerprint(sets), expected[absl::StrCat("plan_fingerprint_", scope)]);
  }
}

// What a rank holds at every tp size: with the whole group's queries its sets are those of tp = 1; with its own query
// heads alone they are the ones that the golden file calls wrong.
TEST_P(GoldenScoresTest, TensorParallel) {
  for (const char* name : {"rkv_tp_replicated", "snapkv_tp_replicated"}) {
    SCOPED_TRACE(name);
    const Json golden = ReadGolden(name);
    const Json &params = golden["params"], &expected = golden["expected"];
    const GoldenArray<float> q = Floats(golden["inputs"]["q"]), k = Floats(golden["inputs"]["k"]);
    const int window = params["window"];
    const int64_t keep = params["keep"], H = k.dim(1), d = k.dim(2), G = q.dim(1) / H;
    const auto scorer = MakeScorer(ConfigOf(params["policy"], params));
    const std::vector<float> whole = LayerOf(k).Scores(*context_, *scorer, q.values, window);
    ExpectScores(whole, Floats(expected["score"]));
    ExpectSets(Select(*context_, whole, H, window, keep), expected["kept_head"], expected["fingerprints_head"]);
    const auto layer_set = Select(*context_, SumOfRows(*context_, whole, H), 1, window, keep)[0];
    EXPECT_EQ(Sets(H, layer_set), expected["kept_layer"].get<Sets>());
    for (const auto& [tp, ranks] : expected["ranks"].items()) {
      for (const Json& rank : ranks) {
        SCOPED_TRACE(absl::StrCat("tp ", tp, " rank ", rank["rank"].get<int>()));
        const std::vector<int64_t> kv_heads = rank["kv_heads"], q_heads = rank["q_heads"];
        // This rank's keys; the queries of the whole groups, and its own.
        GoldenArray<float> keys = {{k.dim(0), static_cast<int64_t>(kv_heads.size()), d}, {}};
        std::vector<float> group, own;
        for (int64_t i = 0; i < k.dim(0); ++i) {
          for (int64_t h : kv_heads) {
            const auto from = k.values.begin() + (i * H + h) * d;
            keys.values.insert(keys.values.end(), from, from + d);
          }
        }
        for (int64_t r = 0; r < window; ++r) {
          const auto row = q.values.begin() + r * q.dim(1) * d;
          for (int64_t h : kv_heads) group.insert(group.end(), row + h * G * d, row + (h + 1) * G * d);
          own.insert(own.end(), row + q_heads[0] * d, row + q_heads[1] * d);
        }
        const Layer layer = LayerOf(keys);
        const std::vector<float> z = layer.Scores(*context_, *scorer, group, window);
        const int64_t m = k.dim(0) - window;
        for (size_t h = 0; h < kv_heads.size(); ++h) {
          for (int64_t i = 0; i < m; ++i) {
            ASSERT_EQ(std::bit_cast<uint32_t>(z[h * m + i]), std::bit_cast<uint32_t>(whole[kv_heads[h] * m + i]));
          }
        }
        const std::vector<float> local = layer.Scores(*context_, *scorer, own, window);
        EXPECT_EQ(FingerprintsOf(*context_, Select(*context_, local, kv_heads.size(), window, keep)),
                  Fingerprints(rank["local_only_fingerprints"]));
      }
    }
  }
}

}  // namespace
}  // namespace cairn
