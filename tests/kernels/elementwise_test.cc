#include "kernels/ops/elementwise.h"

#include <algorithm>

#include "tests/kernels/op_testing.h"

namespace cairn {
namespace {

// Error of one rounding among the subnormal numbers of the type (float32's do not matter here).
double Smallest(DType type) { return type == DType::kFloat16 ? 0x1p-25 : 0; }

constexpr int64_t kWidths[] = {1, 7, 16, 23, 64, 100, 896, 4864};
// Between rows: on a GPU long rows are read by 16 bytes where all of them begin at a multiple of that.
constexpr int64_t kGaps[] = {3, 8};

class RmsNormTest : public OpTest {};
CAIRN_OP_TEST_SUITE(RmsNormTest);

// Relative error: n u for the sum of squares (all terms positive), halved by the root; then a handful of operations.
TEST_P(RmsNormTest, MatchesTheFormula) {
  Random random(1);
  for (DType activation : kFloatTypes) {
    for (int64_t turn = 0; turn < static_cast<int64_t>(std::size(kWidths) * std::size(kGaps)); ++turn) {
      const int64_t C = kWidths[turn / std::size(kGaps)], gap = kGaps[turn % std::size(kGaps)];
      auto c = context(3, activation);
      const int64_t T = 9;
      const float eps = 1e-5f;
      Rows x = Rows::Normal(random, T, C, gap, activation), weight = Rows::Normal(random, 1, C), y(T, C, gap);
      Operands on(*c);
      RmsNorm(*c, on(x), on.F32(weight).Reshape({C}), eps, on(y));
      on.Fetch();
      for (int64_t t = 0; t < T; ++t) {
        double squares = 0;
        for (int64_t i = 0; i < C; ++i) squares += static_cast<double>(x.at(t, i)) * x.at(t, i);
        for (int64_t i = 0; i < C; ++i) {
          const double expected = x.at(t, i) / std::sqrt(squares / C + eps) * weight.at(0, i);
          const double relative = (C / 2.0 + 6) * 0x1p-24 + UnitRoundoff(activation);
          const double tolerance = relative * std::abs(expected) + Smallest(activation);
          ASSERT_NEAR(y.at(t, i), expected, tolerance) << "C " << C << ", at " << t << ", " << i;
        }
      }
      EXPECT_TRUE(y.GapsIntact());
      Rows in_place = x;
      RmsNorm(*c, on(in_place), on.F32(weight).Reshape({C}), eps, on(in_place));
      on.Fetch();
      EXPECT_TRUE(SameBits(in_place, y));
    }
  }
}

TEST_P(RmsNormTest, SpreadsNanOverItsRowOnly) {
  auto c = context();
  Random random(2);
  Rows x = Rows::Normal(random, 3, 50), weight = Rows::Normal(random, 1, 50), y(3, 50);
  x.at(1, 49) = std::nanf("");
  Operands on(*c);
  RmsNorm(*c, on(x), on.F32(weight).Reshape({50}), 1e-6f, on(y));
  on.Fetch();
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < 50; ++i) ASSERT_EQ(std::isnan(y.at(t, i)), t == 1);
  }
}

class AddRmsNormTest : public OpTest {};
CAIRN_OP_TEST_SUITE(AddRmsNormTest);

// A sublayer's sum over ranks comes unrounded where activations have 16 bits in memory, as activations otherwise.
TEST_P(AddRmsNormTest, HasTheBitsOfTheSingleOps) {
  Random random(9);
  for (DType activation : kFloatTypes) {
    for (int64_t turn = 0; turn < static_cast<int64_t>(std::size(kWidths) * std::size(kGaps)); ++turn) {
      const int64_t C = kWidths[turn / std::size(kGaps)], gap = kGaps[turn % std::size(kGaps)];
      for (bool sum : {false, true}) {
        if (sum && (on_cpu() || activation == DType::kFloat32)) continue;
        auto c = context(3, activation);
        const int64_t T = 7;
        const float eps = 1e-5f;
        Rows hidden = Rows::Normal(random, T, C, gap, activation), weight = Rows::Normal(random, 1, C);
        Rows update = Rows::Normal(random, T, C, gap, sum ? DType::kFloat32 : activation), rounded = update;
        for (int64_t t = 0; t < T; ++t) {
          for (int64_t i = 0; i < C; ++i) rounded.at(t, i) = RoundTo(activation, update.at(t, i));
        }
        Rows added = hidden, normed(T, C, gap), fused_normed(T, C, gap);
        Operands on(*c);
        AddInPlace(*c, on(added), on(rounded));
        RmsNorm(*c, on(added), on.F32(weight).Reshape({C}), eps, on(normed));
        AddRmsNorm(*c, on(hidden), sum ? on.F32(update) : on(update), on.F32(weight).Reshape({C}), eps,
                   on(fused_normed));
        on.Fetch();
        EXPECT_TRUE(SameBits(hidden, added)) << "C " << C;
        EXPECT_TRUE(SameBits(fused_normed, normed)) << "C " << C;
        EXPECT_TRUE(hidden.GapsIntact() && fused_normed.GapsIntact());
      }
    }
  }
}

class RopeTest : public OpTest {};
CAIRN_OP_TEST_SUITE(RopeTest);

std::vector<float> InverseFrequencies(int64_t half) {
  std::vector<float> inv_freq(half);
  for (int64_t i = 0; i < half; ++i)
    inv_freq[i] = std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half));
  return inv_freq;
}

// The angle is float32 by contract; cosine and sine err by u each, then two products and a sum. Far positions show that
// the angle is reduced well.
TEST_P(RopeTest, RotatesPairsByTheirAngles) {
  Random random(3);
  for (DType activation : kFloatTypes) {
    for (int64_t half : {1, 4, 16, 20, 32, 40, 64, 128}) {
      for (float scale : {1.0f, 1.25f}) {
        auto c = context(2, activation);
        std::vector<float> inv_freq = InverseFrequencies(half);
        std::vector<int32_t> positions = {0, 1, 17, 4095, 131071, 1000000};
        const int64_t T = static_cast<int64_t>(positions.size()), heads = 3;
        Rows x = Rows::Normal(random, T, heads * 2 * half, 6, activation), y = x;
        Operands on(*c);
        Rope(*c, on(y).SplitRows(heads, 2 * half), on.Ints(positions), on.F32(inv_freq), scale);
        on.Fetch();
        for (int64_t t = 0; t < T; ++t) {
          for (int64_t h = 0; h < heads; ++h) {
            for (int64_t i = 0; i < half; ++i) {
              const int64_t low = h * 2 * half + i, high = low + half;
              const double angle = static_cast<float>(positions[t]) * inv_freq[i];
              const double a = x.at(t, low), b = x.at(t, high);
              const double size = (std::abs(a) + std::abs(b)) * scale;
              const double cosine = std::cos(angle) * scale, sine = std::sin(angle) * scale;
              const double tolerance = size * (4 * 0x1p-24 + UnitRoundoff(activation));
              ASSERT_NEAR(y.at(t, low), a * cosine - b * sine, tolerance) << "position " << positions[t];
              ASSERT_NEAR(y.at(t, high), b * cosine + a * sine, tolerance) << "position " << positions[t];
            }
          }
        }
        EXPECT_TRUE(y.GapsIntact());
      }
    }
  }
}

// The context remembers the last angles: they must not serve other positions, frequencies or scales.
TEST_P(RopeTest, FollowsItsArguments) {
  Random random(4);
  auto c = context();
  std::vector<float> inv_freq = InverseFrequencies(8), other_freq = InverseFrequencies(4);
  std::vector<int32_t> positions = {5, 6}, later = {5, 7}, longer = {5, 6, 7};
  const auto rotate = [](Context& with, Rows x, std::vector<int32_t> p, std::vector<float> f, float scale) {
    const int64_t rows = static_cast<int64_t>(p.size()), half = static_cast<int64_t>(f.size());
    Operands on(with);
    Rope(with, on(x).Rows(0, rows).SplitRows(16 / (2 * half), 2 * half), on.Ints(p), on.F32(f), scale);
    on.Fetch();
    return x;
  };
  const Rows x = Rows::Normal(random, 3, 16);
  rotate(*c, x, positions, inv_freq, 1);
  for (const auto& p : {positions, later, longer}) {
    for (const auto& f : {inv_freq, other_freq}) {
      for (float scale : {1.0f, 2.0f}) {
        EXPECT_TRUE(SameBits(rotate(*c, x, p, f, scale), rotate(*context(), x, p, f, scale)));
      }
    }
  }
}

class SwiGluTest : public OpTest {};
CAIRN_OP_TEST_SUITE(SwiGluTest);

// Exp within 2 ulp (4 u), then a sum, a quotient and a product. Below gate = -88 the exponential saturates: the result
// is then under 1e-36 and its error absolute.
TEST_P(SwiGluTest, MatchesTheFormula) {
  Random random(5);
  for (DType activation : kFloatTypes) {
    for (int64_t turn = 0; turn < static_cast<int64_t>(std::size(kWidths) * std::size(kGaps)); ++turn) {
      const int64_t I = kWidths[turn / std::size(kGaps)], gap = kGaps[turn % std::size(kGaps)];
      auto c = context(3, activation);
      const int64_t T = 5;
      Rows gate_up = Rows::Normal(random, T, 2 * I, gap, activation), y(T, I, gap);
      for (int64_t i = 0; i < I; ++i) gate_up.at(4, i) = RoundTo(activation, gate_up.at(4, i) * 60);
      Operands on(*c);
      SwiGlu(*c, on(gate_up), on(y));
      on.Fetch();
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t i = 0; i < I; ++i) {
          const double gate = gate_up.at(t, i), up = gate_up.at(t, I + i);
          const double expected = gate / (1 + std::exp(-gate)) * up;
          const double tolerance =
              std::abs(expected) * (8 * 0x1p-24 + UnitRoundoff(activation)) + Smallest(activation) + 1e-34;
          ASSERT_NEAR(y.at(t, i), expected, tolerance) << "gate " << gate << ", up " << up;
        }
      }
      EXPECT_TRUE(y.GapsIntact());
    }
  }
}

TEST_P(SwiGluTest, HandlesExtremeGates) {
  auto c = context();
  const float inf = std::numeric_limits<float>::infinity();
  Rows gate_up(1, 8), y(1, 4);
  const float gates[] = {1000, -1000, std::nanf(""), inf};
  for (int i = 0; i < 4; ++i) {
    gate_up.at(0, i) = gates[i];
    gate_up.at(0, 4 + i) = 2;
  }
  Operands on(*c);
  SwiGlu(*c, on(gate_up), on(y));
  on.Fetch();
  EXPECT_EQ(y.at(0, 0), 2000);
  EXPECT_NEAR(y.at(0, 1), 0, 1e-34);
  EXPECT_TRUE(std::isnan(y.at(0, 2)));
  EXPECT_EQ(y.at(0, 3), inf);
}

class AddInPlaceTest : public OpTest {};
CAIRN_OP_TEST_SUITE(AddInPlaceTest);

TEST_P(AddInPlaceTest, AddsAndRoundsOnce) {
  Random random(6);
  for (DType activation : kFloatTypes) {
    for (int64_t C : kWidths) {
      auto c = context(3, activation);
      const int64_t T = 7;
      Rows x = Rows::Normal(random, T, C, 3, activation), y = Rows::Normal(random, T, C, 1, activation), sum = x;
      Operands on(*c);
      AddInPlace(*c, on(sum), on(y));
      // A sum over ranks, where that is of another type in memory.
      Rows unrounded = Rows::Normal(random, T, C), other = x;
      const bool wider = !on_cpu() && activation != DType::kFloat32;
      if (wider) AddInPlace(*c, on(other), on.F32(unrounded));
      on.Fetch();
      for (int64_t t = 0; t < T && wider; ++t) {
        for (int64_t i = 0; i < C; ++i) {
          ASSERT_EQ(other.at(t, i), RoundTo(activation, x.at(t, i) + RoundTo(activation, unrounded.at(t, i))));
        }
      }
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t i = 0; i < C; ++i) ASSERT_EQ(sum.at(t, i), RoundTo(activation, x.at(t, i) + y.at(t, i)));
      }
      EXPECT_TRUE(sum.GapsIntact());
    }
  }
}

class RoundToActivationTest : public OpTest {};
CAIRN_OP_TEST_SUITE(RoundToActivationTest);

// Ties, subnormals, overflow, infinities and NaN, as dtype.h converts them.
TEST_P(RoundToActivationTest, RoundsToNearestEven) {
  Random random(7);
  const float inf = std::numeric_limits<float>::infinity();
  for (DType activation : kFloatTypes) {
    auto c = context(3, activation);
    Rows x = Rows::Normal(random, 6, 333, 2);
    const float special[] = {0.0f,  -0.0f,      0x1.01p0f, 0x1.03p0f,    0x1.002p0f, 0x1.006p0f, 65519.0f, 65520.0f,
                             1e-8f, 0x1.8p-25f, 0x1p-25f,  0x1.004p-14f, 3.4e38f,    inf,        -inf,     1e-41f};
    std::copy(std::begin(special), std::end(special), &x.at(2, 100));
    for (int64_t i = 0; i < 333; ++i) x.at(3, i) *= 1e-6f;
    x.at(4, 0) = std::nanf("");
    Rows y(6, 333, 3), in_place = x;
    Operands on(*c);
    RoundToActivation(*c, on.F32(x), on(y));
    if (c->storage_dtype() == DType::kFloat32) {
      RoundToActivation(*c, on.F32(in_place), on.F32(in_place));
    }
    on.Fetch();
    if (c->storage_dtype() == DType::kFloat32) {
      EXPECT_TRUE(SameBits(in_place, y));
    }
    for (int64_t t = 0; t < x.rows(); ++t) {
      for (int64_t i = 0; i < x.columns(); ++i) {
        const float expected = RoundTo(activation, x.at(t, i));
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(y.at(t, i)));
        } else {
          ASSERT_EQ(std::bit_cast<uint32_t>(y.at(t, i)), std::bit_cast<uint32_t>(expected)) << x.at(t, i);
        }
      }
    }
    EXPECT_TRUE(y.GapsIntact());
  }
}

class TakeRowsTest : public OpTest {};
CAIRN_OP_TEST_SUITE(TakeRowsTest);

TEST_P(TakeRowsTest, CopiesTheRowsThatAreNamed) {
  Random random(9);
  for (DType activation : kFloatTypes) {
    auto c = context(2, activation);
    Rows x = Rows::Normal(random, 9, 301, 5, activation), y(4, 301, 1);
    const std::vector<int32_t> rows = {8, 0, 3, 3};
    Operands on(*c);
    TakeRows(*c, on(x), rows, on(y));
    on.Fetch();
    for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(SameRowBits(y, i, x, rows[i]));
    EXPECT_TRUE(y.GapsIntact());
  }
}

class ScatterIntsTest : public OpTest {};
CAIRN_OP_TEST_SUITE(ScatterIntsTest);

TEST_P(ScatterIntsTest, WritesWhereTheIndicesSay) {
  auto c = context();
  std::vector<int32_t> to(1000, -1), expected = to, indices, values;
  for (int32_t i = 0; i < 600; ++i) {
    indices.push_back(i * 7 % 1000);
    values.push_back(i);
    expected[i * 7 % 1000] = i;
  }
  Operands on(*c);
  const Tensor placed = on.Ints(to);
  ScatterInts(*c, indices, values, placed);
  ScatterInts(*c, {}, {}, placed);
  on.Fetch();
  EXPECT_EQ(to, expected);
}

// Every op above, alone and in a batch, on one thread and on three.
class RowIndependenceTest : public OpTest {};
CAIRN_OP_TEST_SUITE(RowIndependenceTest);

TEST_P(RowIndependenceTest, OfEveryOp) {
  Random random(8);
  for (DType activation : kFloatTypes) {
    const int64_t T = 40, heads = 5, half = 30, C = heads * 2 * half;
    Rows x = Rows::Normal(random, T, C, 0, activation), y = Rows::Normal(random, T, C / 2, 0, activation);
    Rows weight = Rows::Normal(random, 1, C);
    std::vector<float> inv_freq = InverseFrequencies(half);
    std::vector<int32_t> positions(T);
    for (int32_t& p : positions) p = random.Integer(0, 5000);
    const auto run = [&](Context& c, int64_t begin, int64_t end) {
      Rows a = x, b = y;
      Operands on(c);
      const Tensor rows = on(a).Rows(begin, end), halves = on(b).Rows(begin, end);
      RmsNorm(c, rows, on.F32(weight).Reshape({C}), 1e-5f, rows);
      Rope(c, rows.SplitRows(heads, 2 * half), on.Ints(positions).Rows(begin, end), on.F32(inv_freq));
      AddInPlace(c, halves, rows.Columns(7, 7 + C / 2));
      SwiGlu(c, rows, halves);
      on.Fetch();
      return b;
    };
    const Rows all = run(*context(3, activation), 0, T);
    auto one = context(1, activation);
    for (int64_t t = 0; t < T; ++t) EXPECT_TRUE(SameRowBits(run(*one, t, t + 1), t, all, t));
    EXPECT_TRUE(SameRowBits(run(*context(2, activation), 10, 25), 24, all, 24));
  }
}

}  // namespace
}  // namespace cairn
