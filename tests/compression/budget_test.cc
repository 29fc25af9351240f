#include "compression/budget.h"

#include <algorithm>
#include <numeric>

#include "tests/compression/golden.h"

namespace cairn {
namespace {

CompressionConfig Pyramid(int32_t budget, int32_t window, double beta) {
  CompressionConfig config;
  config.schedule = "pyramid";
  config.budget = budget;
  config.window = window;
  config.beta = beta;
  return config;
}

TEST(BudgetTest, PyramidTables) {
  for (const char* name : {"pyramid_budgets", "pyramid_budgets_prompt"}) {
    const Json golden = ReadGolden(name);
    ASSERT_GE(golden["expected"]["tables"].size(), 46);
    for (const Json& table : golden["expected"]["tables"]) {
      SCOPED_TRACE(table.dump());
      const CompressionConfig config = Pyramid(table["mean"], table["window"], table["beta"]);
      const int layers = table["layers"];
      EXPECT_EQ(table.contains("prompt_len") ? AllocatePromptBudgets(config, layers, table["prompt_len"])
                                             : AllocateBudgets(config, layers),
                table["budgets"].get<std::vector<int32_t>>());
    }
  }
}

// The sum is exact, no layer is at or below its window, and budgets fall with depth, by nearly equal steps.
void ExpectPyramid(const std::vector<int32_t>& budgets, int64_t sum, int32_t window, int32_t most) {
  ASSERT_EQ(std::accumulate(budgets.begin(), budgets.end(), int64_t{0}), sum);
  ASSERT_GE(budgets.back(), window + 1);
  ASSERT_LE(budgets.front(), most);
  for (size_t l = 1; l < budgets.size(); ++l) {
    const int32_t step = budgets[l - 1] - budgets[l];
    ASSERT_GE(step, 0);
    ASSERT_LE(std::abs(step - (budgets[0] - budgets[1])), 2);
  }
}

TEST(BudgetTest, PyramidOverAGrid) {
  for (int layers = 1; layers <= 126; ++layers) {
    for (int32_t window : {1, 8, 32}) {
      for (int32_t C : {1, 2, 7, 56, 120, 1016, 4095}) {
        for (double beta : {1.0, 1.1, 2.5, 5.0, 14.0, 20.0, 333.125, 1e6}) {
          const int32_t budget = C + window;
          SCOPED_TRACE(testing::Message()
                       << layers << " layers, window " << window << ", budget " << budget << ", beta " << beta);
          const CompressionConfig config = Pyramid(budget, window, beta);
          const std::vector<int32_t> budgets = AllocateBudgets(config, layers);
          ExpectPyramid(budgets, int64_t{layers} * budget, window, 2 * C + window);
          if (beta == 1) {
            ASSERT_EQ(budgets, std::vector<int32_t>(layers, budget));
          }
          for (int32_t prompt : {1, window, budget, budget + 1, budget + C / 2, 2 * budget, 5 * budget}) {
            const std::vector<int32_t> clamped = AllocatePromptBudgets(config, layers, prompt);
            if (prompt <= budget) {
              ASSERT_EQ(clamped, std::vector<int32_t>(layers, prompt));
            } else {
              ExpectPyramid(clamped, int64_t{layers} * budget, window, prompt);
              if (prompt >= 2 * C + window) {
                ASSERT_EQ(clamped, budgets);
              }
            }
          }
        }
      }
    }
  }
}

// 1.1 is 11/10, as it was written, not the double next to it: C / beta = 10 exactly, so x = 12, 11, 10 needs no
// rounding.
TEST(BudgetTest, SlopeIsADecimalFraction) {
  EXPECT_EQ(PyramidBudgets(3, 11 + 8, 8, 1.1), (std::vector<int32_t>{20, 19, 18}));
  // C = 77: top 70, bottom 84; of x = 84, 80.5, 77, 73.5, 70 the first half unit is rounded up.
  EXPECT_EQ(PyramidBudgets(5, 77 + 8, 8, 1.1), (std::vector<int32_t>{92, 89, 85, 81, 78}));
}

TEST(BudgetTest, LargestModelsDoNotOverflow) {
  const int32_t budget = 1 << 28;
  for (double beta : {1.000001, 999999.999999}) {
    const std::vector<int32_t> budgets = PyramidBudgets(1000, budget, 8, beta);
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), int64_t{0}), 1000 * int64_t{budget});
    EXPECT_TRUE(std::is_sorted(budgets.rbegin(), budgets.rend()));
    EXPECT_GT(budgets.back(), 8);
  }
}

CompressionConfig Weighted(int32_t budget, std::vector<double> weights) {
  CompressionConfig config;
  config.schedule = "weighted";
  config.budget = budget;
  config.layer_weights = std::move(weights);
  return config;
}

TEST(BudgetTest, WeightedByHand) {
  // Beyond the window of 8 there are 4 x 10 slots: one each, and 36 by weight.
  EXPECT_EQ(AllocateBudgets(Weighted(18, {1, 2, 0, 1}), 4), (std::vector<int32_t>{18, 27, 9, 18}));
  // 1 + 27 x (2, 2, 3) / 7 = 8.71, 8.71, 12.57: the two that are missing go to the first two.
  EXPECT_EQ(AllocateBudgets(Weighted(8 + 10, {0.2, 0.2, 0.3}), 3), (std::vector<int32_t>{17, 17, 20}));
  EXPECT_EQ(AllocateBudgets(Weighted(8 + 3, {5, 5, 5}), 3), (std::vector<int32_t>{11, 11, 11}));
  // 1 + 3 x (1, 1, 0) / 2: of equal remainders the earlier.
  EXPECT_EQ(AllocateBudgets(Weighted(8 + 2, {1, 1, 0}), 3), (std::vector<int32_t>{11, 10, 9}));
}

// The same arithmetic over the KV heads of all layers.
TEST(BudgetTest, WeightsOfHeads) {
  CompressionConfig config = Weighted(18, {});
  config.algorithm = "rkv";
  config.head_weights = {1, 2, 0, 1};
  EXPECT_EQ(NumBudgets(config, 2, 2), 4);
  EXPECT_EQ(AllocateBudgets(config, 4), (std::vector<int32_t>{18, 27, 9, 18}));
  EXPECT_EQ(AllocatePromptBudgets(config, 4, 22), (std::vector<int32_t>{21, 22, 9, 20}));
  config.head_weights.clear();
  config.schedule = "uniform";
  EXPECT_EQ(NumBudgets(config, 2, 2), 2);
}

// Equal weights are uniform, whatever their size.
TEST(BudgetTest, EqualWeights) {
  for (const double weight : {0.001, 1.0, 333.3}) {
    EXPECT_EQ(AllocateBudgets(Weighted(300, std::vector<double>(28, weight)), 28), std::vector<int32_t>(28, 300));
  }
}

// What a layer cannot use of a prompt goes to the others, by their weights; where they have none, evenly.
TEST(BudgetTest, WeightedPrompts) {
  const CompressionConfig config = Weighted(18, {1, 2, 0, 1});
  EXPECT_EQ(AllocatePromptBudgets(config, 4, 100), AllocateBudgets(config, 4));
  EXPECT_EQ(AllocatePromptBudgets(config, 4, 18), std::vector<int32_t>(4, 18));
  // Layer 1 takes 14 of its 19 beyond the window; 26 are left: 1 + 23 x (1, 0, 1) / 2.
  EXPECT_EQ(AllocatePromptBudgets(config, 4, 22), (std::vector<int32_t>{21, 22, 9, 20}));
  EXPECT_EQ(AllocatePromptBudgets(Weighted(18, {1, 0, 0, 0}), 4, 20), (std::vector<int32_t>{20, 18, 17, 17}));
}

TEST(BudgetTest, WeightedOverAGrid) {
  uint64_t state = 1;
  for (int layers = 1; layers <= 80; ++layers) {
    std::vector<double> weights;
    for (int l = 0; l < layers; ++l) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const double unit = static_cast<double>(state >> 40) / (1 << 24);
      weights.push_back(l % 3 == 0 ? 0 : unit * (l % 5 == 0 ? 1000 : 1));
    }
    if (layers == 1) weights[0] = 1;
    for (const int32_t C : {1, 2, 56, 1016}) {
      const CompressionConfig config = Weighted(C + 8, weights);
      const std::vector<int32_t> budgets = AllocateBudgets(config, layers);
      SCOPED_TRACE(testing::Message() << layers << " layers, C " << C);
      ASSERT_EQ(std::accumulate(budgets.begin(), budgets.end(), int64_t{0}), int64_t{layers} * config.budget);
      for (int l = 0; l < layers; ++l) {
        ASSERT_GE(budgets[l], 9);
        for (int k = 0; k < layers; ++k) {
          if (weights[k] > weights[l]) {
            ASSERT_GE(budgets[k], budgets[l]);
          }
        }
      }
      for (const int32_t prompt : {C + 9, C + 8 + C / 2 + 1, 5 * (C + 8), 100000}) {
        const std::vector<int32_t> clamped = AllocatePromptBudgets(config, layers, prompt);
        ASSERT_EQ(std::accumulate(clamped.begin(), clamped.end(), int64_t{0}), int64_t{layers} * config.budget);
        ASSERT_GE(*std::min_element(clamped.begin(), clamped.end()), 9);
        ASSERT_LE(*std::max_element(clamped.begin(), clamped.end()), prompt);
        if (prompt == 100000) {
          ASSERT_EQ(clamped, budgets);
        }
      }
    }
  }
}

TEST(BudgetTest, Uniform) {
  CompressionConfig config;
  config.budget = 300;
  EXPECT_EQ(AllocateBudgets(config, 3), std::vector<int32_t>(3, 300));
  EXPECT_EQ(AllocatePromptBudgets(config, 3, 301), std::vector<int32_t>(3, 300));
  EXPECT_EQ(AllocatePromptBudgets(config, 3, 299), std::vector<int32_t>(3, 299));
}

}  // namespace
}  // namespace cairn
