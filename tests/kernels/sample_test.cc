#include "kernels/ops/sample.h"

#include <algorithm>

#include "tests/kernels/op_testing.h"

namespace cairn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SampleKeyTest, OrdersByLogitThenByLowerToken) {
  const float logits[] = {-kInfinity, -3e38f, -1.0f, -1e-40f, 0.0f, 1e-40f, 2.5f, 3e38f, kInfinity};
  for (size_t i = 0; i < std::size(logits); ++i) {
    const int64_t key = SampleKey(logits[i], 7);
    EXPECT_GT(key, 0);
    EXPECT_EQ(SampleKeyLogit(key), logits[i]);
    EXPECT_EQ(SampleKeyToken(key), 7);
    EXPECT_GT(key, SampleKey(logits[i], 8));
    if (i > 0) {
      EXPECT_GT(SampleKey(logits[i], INT32_MAX), SampleKey(logits[i - 1], 0));
    }
  }
  EXPECT_EQ(SampleKey(-0.0f, 1), SampleKey(0.0f, 1));
  EXPECT_EQ(SampleKey(std::nanf(""), 1), SampleKey(-kInfinity, 1));
}

TEST(SampleTargetTest, IsTheShareOfTheTotal) {
  EXPECT_EQ(SampleTarget(1000, 0), 0);
  EXPECT_EQ(SampleTarget(1000, uint64_t{1} << 63), 500);
  EXPECT_EQ(SampleTarget(1000, ~uint64_t{0}), 999);
  EXPECT_EQ(SampleTarget((int64_t{1} << 62) - 1, ~uint64_t{0}), (int64_t{1} << 62) - 2);
}

// The parts of a vocabulary that ranks hold, their logits in one matrix.
using Cuts = std::vector<int64_t>;  // 0, ..., vocab

struct Draw {
  float inverse_temperature;
  uint64_t fraction;
};

// The steps on every part, with what travels between the ranks copied by hand.
std::vector<int64_t> Sample(Context& context, Rows& logits, const Cuts& cuts, const std::vector<Draw>& draws) {
  const int64_t M = logits.rows(), ranks = static_cast<int64_t>(cuts.size()) - 1;
  int64_t widest = 1;
  for (int64_t r = 0; r < ranks; ++r) widest = std::max(widest, cuts[r + 1] - cuts[r]);
  const int64_t chunks = NumSampleChunks(widest);
  std::vector<float> inverse;
  std::vector<int64_t> fractions, best(M, 0), totals(ranks * M * chunks, -1), tokens(M, -1);
  for (const Draw& draw : draws) {
    inverse.push_back(draw.inverse_temperature);
    fractions.push_back(static_cast<int64_t>(draw.fraction));
  }
  Operands on(context);
  const Tensor l = on.F32(logits);
  const auto part = [&](int64_t r) { return l.Columns(cuts[r], cuts[r + 1]); };
  for (int64_t r = 0; r < ranks; ++r) {
    std::vector<int64_t> own(M, -5);
    Operands step(context);
    BestTokens(context, part(r), cuts[r], step.Ints(own));
    step.Fetch();
    for (int64_t m = 0; m < M; ++m) best[m] = std::max(best[m], own[m]);
  }
  for (int64_t r = 0; r < ranks; ++r) {
    std::vector<int64_t> own(M * chunks, -5);
    Operands step(context);
    SampleTotals(context, part(r), step.Ints(best), step.F32(inverse), step.Ints(own).Reshape({M, chunks}));
    step.Fetch();
    std::copy(own.begin(), own.end(), totals.begin() + r * M * chunks);
  }
  for (int64_t r = 0; r < ranks; ++r) {
    std::vector<int64_t> own(M, -5);
    Operands step(context);
    SampleTokens(context, part(r), cuts[r], static_cast<int>(r), step.Ints(best), step.F32(inverse),
                 step.Ints(fractions), step.Ints(totals).Reshape({ranks, M, chunks}), step.Ints(own));
    step.Fetch();
    for (int64_t m = 0; m < M; ++m) {
      EXPECT_TRUE(own[m] == -1 || tokens[m] == -1 || own[m] == tokens[m]) << "two ranks have row " << m;
      tokens[m] = std::max(tokens[m], own[m]);
    }
  }
  return tokens;
}

// The formula of the header, without chunks; `slack`: the sum up to there may be off by so much.
bool IsTheToken(const Rows& logits, int64_t m, const Draw& draw, int64_t token, double slack) {
  float largest = -kInfinity;
  for (int64_t i = 0; i < logits.columns(); ++i) largest = std::max(largest, logits.at(m, i));
  std::vector<int64_t> weights;
  int64_t total = 0;
  for (int64_t i = 0; i < logits.columns(); ++i) {
    const float scaled = logits.at(m, i) * draw.inverse_temperature;
    weights.push_back(SampleWeight(scaled - largest * draw.inverse_temperature));
    total += weights.back();
  }
  int64_t before = 0;
  for (int64_t i = 0; i < token; ++i) before += weights[i];
  const double target = static_cast<double>(SampleTarget(total, draw.fraction)), allowed = slack * total;
  return static_cast<double>(before) <= target + allowed &&
         static_cast<double>(before + weights[token]) > target - allowed;
}

class SampleTest : public OpTest {
 protected:
  // A float32 exponential of a GPU errs by 2 units in the last place, the CPU's by one.
  double slack() const { return on_cpu() || kEmulated ? 0 : 4 * 0x1p-23; }
};
CAIRN_OP_TEST_SUITE(SampleTest);

TEST_P(SampleTest, DrawsTheSameTokenHoweverTheVocabularyIsCut) {
  Random random(1);
  std::mt19937_64 bits(2);
  auto c = context(2);
  // Within a chunk, several chunks, a vocabulary of one.
  for (const int64_t V : {int64_t{300}, 2 * kSampleChunk + 77, int64_t{1}}) {
    const int64_t M = 5;
    Rows logits = Rows::Normal(random, M, V, 3);
    for (int64_t i = 0; i < V; i += 7) logits.at(1, i) = -kInfinity;
    if (V > 1) logits.at(2, 1) = std::nanf("");
    std::vector<Draw> draws;
    for (int64_t m = 0; m < M; ++m) draws.push_back({m == 0 ? 0.0f : 0.5f * static_cast<float>(m), bits()});
    draws[1].fraction = 0;  // its first token cannot be drawn
    draws[4].fraction = ~uint64_t{0};
    if (V == 1) logits.at(1, 0) = 1;
    const std::vector<int64_t> whole = Sample(*c, logits, {0, V}, draws);
    for (int64_t m = 0; m < M; ++m) {
      ASSERT_GE(whole[m], 0) << "row " << m << " of " << V;
      ASSERT_LT(whole[m], V);
      if (m == 0) {
        for (int64_t i = 0; i < V; ++i) EXPECT_LE(logits.at(0, i), logits.at(0, whole[0]));
      } else {
        EXPECT_TRUE(IsTheToken(logits, m, draws[m], whole[m], slack()))
            << "row " << m << " of " << V << ": " << whole[m];
      }
    }
    if (V == 1) continue;
    EXPECT_EQ(Sample(*c, logits, {0, V / 3, V / 2, V}, draws), whole) << V;
    EXPECT_EQ(Sample(*c, logits, {0, V - 1, V, V}, draws), whole) << V;  // the last rank has none
  }
}

TEST_P(SampleTest, GreedyTakesTheLowestOfEquals) {
  auto c = context();
  Rows logits(4, 6);
  const float rows[4][6] = {{1, 3, 2, 3, 3, -1},
                            {std::nanf(""), -kInfinity, -2, std::nanf(""), -2, -7},
                            {-kInfinity, std::nanf(""), -kInfinity, -kInfinity, -kInfinity, -kInfinity},
                            {-0.0f, 0.0f, -0.0f, 0.0f, -1, -1}};
  for (int m = 0; m < 4; ++m) {
    for (int i = 0; i < 6; ++i) logits.at(m, i) = rows[m][i];
  }
  for (const Cuts& cuts : {Cuts{0, 6}, Cuts{0, 1, 3, 6}}) {
    EXPECT_EQ(Sample(*c, logits, cuts, std::vector<Draw>(4, {0, 1})), (std::vector<int64_t>{1, 2, 0, 0}));
  }
}

// Temperatures without a finite largest l / T, and rows without one: the greedy token.
TEST_P(SampleTest, IsGreedyWhereThereIsNothingToDrawFrom) {
  auto c = context();
  Rows logits(3, 4);
  const float rows[3][4] = {{-kInfinity, -kInfinity, -kInfinity, -kInfinity}, {1, kInfinity, 2, 3}, {1, 300, 5, 299}};
  for (int m = 0; m < 3; ++m) {
    for (int i = 0; i < 4; ++i) logits.at(m, i) = rows[m][i];
  }
  const uint64_t half = uint64_t{1} << 63;
  EXPECT_EQ(Sample(*c, logits, {0, 2, 4}, {{1, half}, {1, half}, {3e38f, half}}), (std::vector<int64_t>{0, 1, 1}));
}

TEST_P(SampleTest, FollowsTheDistribution) {
  auto c = context();
  const double probabilities[] = {0.5, 0.3, 0.15, 0.05};
  const int draws = kEmulated ? 400 : 4000;
  Rows logits(draws, 4);
  std::vector<Draw> uniform;
  for (int m = 0; m < draws; ++m) {
    for (int i = 0; i < 4; ++i) logits.at(m, i) = static_cast<float>(std::log(probabilities[i]));
    uniform.push_back({1, ~uint64_t{0} / static_cast<uint64_t>(draws) * static_cast<uint64_t>(m)});  // evenly
  }
  std::vector<int> counts(4);
  for (const int64_t token : Sample(*c, logits, {0, 2, 4}, uniform)) ++counts.at(static_cast<size_t>(token));
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(counts[i], probabilities[i] * draws, 1.01) << i;
}

}  // namespace
}  // namespace cairn
