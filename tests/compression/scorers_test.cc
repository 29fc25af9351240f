// What holds for every scorer, whatever the keys: valid sets, memory, heads apart from each other.
#include <malloc.h>
#include <sys/resource.h>

#include <cmath>
#include <map>
#include <numeric>

#include "kernels/ops/kv_scores.h"
#include "tests/compression/layer.h"

namespace cairn {
namespace {

constexpr const char* kAlgorithms[] = {"rkv", "rkv-history", "snapkv", "streamingllm",
                                       "h2o", "keydiff",     "gkv",    "random"};

CompressionConfig ConfigOf(const std::string& algorithm) {
  CompressionConfig config;
  config.algorithm = algorithm;
  config.gkv_redundancy = true;
  return config;
}

std::vector<float> RandomFloats(Random& random, int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = random.Normal();
  return values;
}

class ScorersTest : public OpTest {};
CAIRN_OP_TEST_SUITE(ScorersTest);

// NaN, infinities, zeros, keys whose squares overflow or vanish: still exactly K slots, ascending, the window among
// them; and another head does not notice.
TEST_P(ScorersTest, BrokenKeysMakeNoBrokenSets) {
  const float inf = std::numeric_limits<float>::infinity();
  const float broken[] = {std::nanf(""), inf, -inf, 0.0f, 1e30f, -1e38f, 1e-30f, 1e-42f};
  auto c = context(2);
  for (const char* algorithm : kAlgorithms) {
    SCOPED_TRACE(algorithm);
    const CompressionConfig config = ConfigOf(algorithm);
    const auto scorer = MakeScorer(config);
    Random random(1);
    const int32_t n = 150, keep = 60;
    const std::vector<float> queries = RandomFloats(random, 8 * 4 * 16), clean = RandomFloats(random, n * 2 * 16);
    std::vector<float> expected;
    for (int repeat = 0; repeat < (kEmulated ? 4 : 30); ++repeat) {
      std::vector<float> keys = clean;
      // The second head's keys: one element, or a whole key, in one slot or in many.
      for (int count = repeat == 0 ? 0 : random.Integer(1, repeat % 3 == 0 ? 100 : 3); count > 0; --count) {
        const float value = broken[random.Integer(0, 7)];
        float* key = keys.data() + (random.Integer(0, n - 1) * 2 + 1) * 16;
        std::fill_n(key, random.Integer(0, 1) == 0 ? 1 : 16, value);
      }
      Layer layer(*c, 2, 16, n, DType::kFloat32, scorer->num_running_scores());
      layer.Append(*c, keys, 0, n);
      const std::vector<float> scores = layer.Scores(*c, *scorer, queries, 8);
      if (repeat == 0) expected.assign(scores.begin(), scores.begin() + n - 8);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), scores.begin())) << "the first head changed";
      for (const auto& sets : {Select(*c, scores, 2, 8, keep, scorer->num_sinks()),
                               Select(*c, SumOfRows(*c, scores, 2), 1, 8, keep, scorer->num_sinks())}) {
        for (const std::vector<int32_t>& set : sets) {
          ASSERT_EQ(set.size(), static_cast<size_t>(keep));
          ASSERT_TRUE(std::is_sorted(set.begin(), set.end(), std::less_equal<int32_t>()));
          ASSERT_GE(set[0], 0);
          for (int32_t i = 0; i < 8; ++i) ASSERT_EQ(set[keep - 8 + i], n - 8 + i);
        }
      }
    }
  }
}

// Tiny keys have cosines like any others: their squares vanish in 16 bits, not in float32.
TEST_P(ScorersTest, TheLengthOfKeysDoesNotChangeTheirRedundancy) {
  auto c = context(2);
  Random random(2);
  CompressionConfig config = ConfigOf("rkv");
  config.mix_lambda = 0;  // redundancy alone
  const auto scorer = MakeScorer(config);
  const std::vector<float> keys = RandomFloats(random, 100 * 16), queries = RandomFloats(random, 8 * 16);
  std::vector<float> expected;
  for (float length : {1.0f, 0x1p-12f, 0x1p12f}) {  // 2^-12 squared is below the smallest float16
    std::vector<float> scaled = keys;
    for (float& value : scaled) value *= length;
    Layer layer(*c, 1, 16, 100, DType::kBFloat16);
    layer.Append(*c, scaled, 0, 100);
    const std::vector<float> scores = layer.Scores(*c, *scorer, queries, 8);
    if (expected.empty()) expected = scores;
    for (size_t i = 0; i < scores.size(); ++i) ASSERT_NEAR(scores[i], expected[i], 1e-6) << "length " << length;
  }
}

// Twelve compactions of random sizes: positions ascend in every head, the last w are the last w tokens, and each slot's
// key and value are those of its position.
TEST_P(ScorersTest, SlotsStayWholeOverManyCompactions) {
  auto c = context(2);
  for (const char* algorithm : kAlgorithms) {
    SCOPED_TRACE(algorithm);
    const auto scorer = MakeScorer(ConfigOf(algorithm));
    Random random(3);
    const std::vector<float> keys = RandomFloats(random, 1000 * 3 * 8);
    Layer layer(*c, 3, 8, 200, DType::kFloat32, scorer->num_running_scores(), 5);
    int32_t fed = 0;
    for (int round = 0; round < (kEmulated ? 5 : 12); ++round) {
      const int32_t more = random.Integer(1, 200 - layer.View().num_slots), n = layer.View().num_slots + more;
      layer.Append(*c, keys, fed, fed + more);
      fed += more;
      if (n <= 9) continue;
      const int32_t keep = random.Integer(9, n);
      const std::vector<float> scores = layer.Scores(*c, *scorer, RandomFloats(random, 8 * 6 * 8), 8);
      layer.Compact(*c, Select(*c, scores, 3, 8, keep, scorer->num_sinks()));
      const KvView kv = layer.HostView();
      ASSERT_EQ(kv.num_slots, keep);
      for (int h = 0; h < 3; ++h) {
        for (int32_t slot = 0; slot < keep; ++slot) {
          const int32_t position = *kv.position(h, slot);
          if (slot > 0) {
            ASSERT_GT(position, *kv.position(h, slot - 1));
          }
          if (slot >= keep - 8) {
            ASSERT_EQ(position, fed - (keep - slot));
          }
          if (slot < scorer->num_sinks() && keep - 8 >= 4) {
            ASSERT_EQ(position, slot);
          }
          ASSERT_EQ(ReadElement(DType::kFloat32, kv.k(h, slot), 5), keys[(position * 3 + h) * 8 + 5]);
          ASSERT_EQ(ReadElement(DType::kFloat32, kv.v(h, slot), 5), static_cast<float>(position));
        }
      }
    }
  }
}

// rkv keeps where each key's near-duplicate was, to look at less the next time: the same bits as without, over many
// compactions that take near-duplicates away or leave them, for keys in clusters and alone.
TEST_P(ScorersTest, WhatRedundancyRemembersChangesNothing) {
  auto c = context(3);
  const auto scorer = MakeScorer(ConfigOf("rkv"));
  for (const int clusters : {0, 3, 40}) {
    for (const float spread : {0.2f, 0.7f}) {
      SCOPED_TRACE(testing::Message() << clusters << " clusters, spread " << spread);
      Random random(6);
      constexpr int kHeads = 2, kDim = 16, kTokens = 3000, kCapacity = 400;
      const std::vector<float> centers = RandomFloats(random, std::max(1, clusters) * kDim);
      std::vector<float> keys = RandomFloats(random, kTokens * kHeads * kDim);
      for (int64_t key = 0; clusters > 0 && key < kTokens * kHeads; ++key) {
        const int64_t center = random.Integer(0, clusters - 1);
        for (int i = 0; i < kDim; ++i) {
          keys[key * kDim + i] = centers[center * kDim + i] + spread * keys[key * kDim + i];
        }
      }
      Layer with(*c, kHeads, kDim, kCapacity, DType::kBFloat16, /*num_scores=*/1),
          without(*c, kHeads, kDim, kCapacity, DType::kBFloat16);
      int32_t fed = 0;
      for (int round = 0; round < (kEmulated ? 5 : 25); ++round) {
        const int32_t more = random.Integer(0, round % 5 == 0 ? 200 : 70), room = kCapacity - with.View().num_slots;
        const int32_t end = std::min(fed + std::min(more, room), kTokens);
        for (Layer* layer : {&with, &without}) layer->Append(*c, keys, fed, end);
        fed = end;
        const int32_t n = with.View().num_slots;
        if (n <= 9) continue;
        const std::vector<float> queries = RandomFloats(random, 8 * 4 * kDim);
        const std::vector<float> scores = with.Scores(*c, *scorer, queries, 8);
        ASSERT_EQ(scores, without.Scores(*c, *scorer, queries, 8)) << "round " << round << ", " << n << " slots";
        // What rkv would keep, or anything: then many a near-duplicate is gone.
        std::vector<float> worth = round % 2 == 0 ? scores : RandomFloats(random, kHeads * (n - 8));
        const auto kept = Select(*c, worth, kHeads, 8, random.Integer(std::max(9, n - 150), n));
        for (Layer* layer : {&with, &without}) layer->Compact(*c, kept);
      }
      EXPECT_GT(fed, kEmulated ? 100 : 800);
    }
  }
}

// rkv-history's importance, lambda 1: the mean of what the windows since a slot came paid to it, over compactions too.
TEST_P(ScorersTest, HistoryIsTheMeanOverTheWindowsSinceASlotCame) {
  auto c = context(2);
  constexpr int kHeads = 2, kDim = 16, kWindow = 8;
  CompressionConfig config = ConfigOf("rkv-history");
  config.mix_lambda = 1;
  config.kernel_size = 1;
  const auto scorer = MakeScorer(config);
  ASSERT_TRUE(scorer->observes());
  Random random(8);
  const std::vector<float> keys = RandomFloats(random, 200 * kHeads * kDim);
  Layer layer(*c, kHeads, kDim, 100, DType::kFloat32, scorer->num_running_scores());
  layer.Append(*c, keys, 0, 20);                                     // a prompt
  std::vector<std::map<int32_t, std::vector<double>>> paid(kHeads);  // by position
  for (int32_t windows = 1, fed = 20; windows <= 9; ++windows) {
    layer.Append(*c, keys, fed, fed + kWindow);
    fed += kWindow;
    const KvView view = layer.View();
    const int64_t n = view.num_slots, m = n - kWindow;
    std::vector<float> queries = RandomFloats(random, kWindow * 4 * kDim), importance(kHeads * n), scores(kHeads * m);
    Operands on(*c);
    const Tensor q = on.F32(queries).Reshape({kWindow, 4, kDim});
    WindowImportance(*c, {view}, q, 0, on.F32(importance).Reshape({kHeads, n}));
    const int32_t first[] = {0};
    const ScorerInputs inputs = {.kv = absl::MakeConstSpan(&view, 1),
                                 .queries = q,
                                 .layers = first,
                                 .windows = absl::MakeConstSpan(&windows, 1)};
    const bool compacts = windows % 3 == 0;
    if (compacts) {
      scorer->Score(*c, inputs, on.F32(scores).Reshape({kHeads, m}));
    } else {
      scorer->Observe(*c, inputs);
    }
    on.Fetch();
    const KvView kv = layer.HostView();
    for (int h = 0; h < kHeads; ++h) {
      for (int32_t i = 0; i < n; ++i) {
        std::vector<double>& values = paid[h][*kv.position(h, i)];
        values.push_back(importance[h * n + i]);
        const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
        ASSERT_NEAR(*kv.score(h, i, 1), mean, 1e-6) << "window " << windows << " slot " << i;
        if (compacts && i < m) {
          ASSERT_NEAR(scores[h * m + i], mean, 1e-6);
        }
      }
    }
    if (compacts) layer.Compact(*c, Select(*c, scores, kHeads, kWindow, 20));
  }
}

size_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Host memory: once the longest sequence has been seen, shorter ones and it take none.
class ScorersHeapTest : public OpTest {};
CAIRN_CPU_OP_TEST_SUITE(ScorersHeapTest);

TEST_P(ScorersHeapTest, ScoringAllocatesNothingAfterWarmUp) {
  auto c = context(1);
  for (const char* algorithm : kAlgorithms) {
    SCOPED_TRACE(algorithm);
    const auto scorer = MakeScorer(ConfigOf(algorithm));
    Random random(4);
    std::vector<float> queries = RandomFloats(random, 8 * 4 * 16), scores(2 * 300);
    std::vector<int32_t> kept(2 * 200);
    Layer layer(*c, 2, 16, 300, DType::kBFloat16, scorer->num_running_scores());
    layer.Append(*c, RandomFloats(random, 300 * 2 * 16), 0, 300);
    KvView kv = layer.View();
    const int32_t layers[] = {0}, windows[] = {1};
    size_t settled = 0;
    for (int32_t n : {300, 290, 300, 77, 300}) {
      kv.num_slots = n;
      const Tensor s(scores.data(), DType::kFloat32, {2, n - 8});
      scorer->Score(
          *c, {absl::MakeConstSpan(&kv, 1), Tensor(queries.data(), DType::kFloat32, {8, 4, 16}), layers, windows}, s);
      SelectTopK(*c, s, {{n - 8, 8, 50}}, scorer->num_sinks(), Tensor(kept.data(), DType::kInt32, {2, 50}));
      if (settled == 0) settled = HeapBytes();
      EXPECT_EQ(HeapBytes(), settled) << n;
    }
  }
}

#if !CAIRN_TEST_EMULATED_GPU
// 40,000 slots: one bit per pair would take 200 MB.
TEST(ScorersMemoryTest, NoArrayOfPairs) {
  auto c = Context::Cpu(2, DType::kFloat32);
  Random random(5);
  const int32_t n = 40000;
  Layer layer(*c, 1, 4, n, DType::kBFloat16);
  layer.Append(*c, RandomFloats(random, n * 4), 0, n);
  std::vector<float> queries = RandomFloats(random, 8 * 4);
  const auto peak_kb = [] {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const int64_t before = peak_kb();
  layer.Scores(*c, *MakeScorer(ConfigOf("rkv")), queries, 8);
  EXPECT_LT(peak_kb() - before, 64 << 10);
}
#endif

}  // namespace
}  // namespace cairn
