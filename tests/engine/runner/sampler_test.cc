#include "engine/runner/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "engine/runner/philox.h"
#include "kernels/ops/sample.h"

namespace cairn {
namespace {

class SamplerTest : public testing::Test {
 protected:
  TokenLogprob One(const OpenSequence& open, std::vector<float> logits, int32_t position = 10) {
    Sampler sampler(1, static_cast<int64_t>(logits.size()), 1);
    sampler.Open(open);
    std::vector<StepResult::Token> tokens;
    sampler.Sample(*context_, Tensor(logits.data(), DType::kFloat32, {1, static_cast<int64_t>(logits.size())}),
                   {{{0, position}}}, tokens);
    return tokens[0].sampled;
  }
  // Shares of the tokens over many positions.
  std::map<int32_t, double> Frequencies(const OpenSequence& open, const std::vector<float>& logits, int draws = 20000) {
    std::map<int32_t, double> share;
    for (int i = 0; i < draws; ++i) share[One(open, logits, i).token] += 1.0 / draws;
    return share;
  }

  std::unique_ptr<Context> context_ = Context::Cpu(1, DType::kFloat32);
};

// The published test vectors of Random123 (kat_vectors, philox4x32-10).
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t f = 0xffffffff;
  EXPECT_EQ(Philox4x32({f, f, f, f}, {f, f}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST_F(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(One({.sampler = {.temperature = 0}}, {1, 3, 2, 3}).token, 1);
  EXPECT_EQ(One({.sampler = {.temperature = 0}}, {NAN, -INFINITY, -2, NAN}).token, 2);
}

TEST_F(SamplerTest, DrawsFollowTheDistribution) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  auto share = Frequencies({.sampler = {.seed = 1}}, logits);
  // Five standard deviations of a share of 20,000 draws are below 0.018.
  EXPECT_NEAR(share[0], 0.5, 0.018);
  EXPECT_NEAR(share[1], 0.3, 0.018);
  EXPECT_NEAR(share[2], 0.15, 0.018);
  EXPECT_NEAR(share[3], 0.05, 0.018);
  share = Frequencies({.sampler = {.temperature = 0.5f}}, logits);  // probabilities squared, normalised
  EXPECT_NEAR(share[0], 0.25 / 0.365, 0.018);
}

TEST_F(SamplerTest, TopKTopPAndMinPCutWhereVllmDoes) {
  const std::vector<float> logits = {std::log(0.05f), std::log(0.15f), std::log(0.5f), std::log(0.3f)};
  const auto kept = [&](const SamplerSpec& spec) {
    std::set<int32_t> tokens;
    for (const auto& [token, share] : Frequencies({.sampler = spec}, logits, 3000)) tokens.insert(token);
    return tokens;
  };
  EXPECT_EQ(kept({.top_k = 2}), (std::set<int32_t>{2, 3}));
  EXPECT_EQ(kept({.top_p = 0.4f}), (std::set<int32_t>{2}));
  EXPECT_EQ(kept({.top_p = 0.7f}), (std::set<int32_t>{2, 3}));  // the token that crosses is in
  EXPECT_EQ(kept({.top_p = 0.6f, .top_k = 2}),
            (std::set<int32_t>{2}));  // top_p of what top_k left: 0.5 / 0.8 reaches 0.6
  EXPECT_EQ(kept({.min_p = 0.29f}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(kept({.min_p = 0.31f}), (std::set<int32_t>{2, 3}));
}

TEST_F(SamplerTest, DependsOnSeedRequestIndexAndPositionAlone) {
  std::vector<float> logits(1000, 0.f);
  const OpenSequence open = {.sampler = {.seed = 5, .request_key = 77, .index = 1}};
  const int32_t token = One(open, logits, 20).token;
  EXPECT_EQ(One(open, logits, 20).token, token);
  std::set<int32_t> others;
  others.insert(One(open, logits, 21).token);
  others.insert(One({.sampler = {.seed = 6, .request_key = 77, .index = 1}}, logits, 20).token);
  others.insert(One({.sampler = {.seed = 5, .request_key = 78, .index = 1}}, logits, 20).token);
  others.insert(One({.sampler = {.seed = 5, .request_key = 77, .index = 2}}, logits, 20).token);
  EXPECT_EQ(others.size(), 4u);
  EXPECT_FALSE(others.contains(token));
}

// What is chosen where the logits are (kernels/ops/sample.h) is what whole rows on the host give.
TEST_F(SamplerTest, PlainRowsGetTheTokensOfTheSampleOps) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0, 2);
  const int64_t vocab = kSampleChunk + 300, chunks = NumSampleChunks(vocab);
  std::set<int64_t> drawn;
  for (int i = 0; i < 40; ++i) {
    std::vector<float> logits(static_cast<size_t>(vocab));
    for (float& logit : logits) logit = normal(rng);
    const OpenSequence open = {
        .sampler = {.seed = 9, .request_key = 5, .temperature = 0.25f * static_cast<float>(i % 8)}};
    Sampler sampler(1, vocab, 1);
    sampler.Open(open);
    const Sampler::Row row = {0, 10 + i};
    ASSERT_FALSE(sampler.NeedsLogits(row));
    float inverse = sampler.InverseTemperature(row);
    int64_t fraction = static_cast<int64_t>(sampler.Fraction(row)), best = 0, token = -1;
    std::vector<int64_t> totals(static_cast<size_t>(chunks));
    const auto words = [](int64_t& value) { return Tensor(&value, DType::kInt64, {1}); };
    const Tensor whole(logits.data(), DType::kFloat32, {1, vocab}), scale(&inverse, DType::kFloat32, {1});
    const Tensor sums(totals.data(), DType::kInt64, {1, chunks});
    BestTokens(*context_, whole, 0, words(best));
    SampleTotals(*context_, whole, words(best), scale, sums);
    SampleTokens(*context_, whole, 0, 0, words(best), scale, words(fraction), sums.Reshape({1, 1, chunks}),
                 words(token));
    EXPECT_EQ(One(open, logits, row.position).token, token) << "temperature " << open.sampler.temperature;
    drawn.insert(token);
  }
  EXPECT_GT(drawn.size(), 30u);
}

TEST_F(SamplerTest, KnowsWhichRowsNeedTheirLogits) {
  const auto needs = [](const OpenSequence& open) {
    Sampler sampler(1, 4, 1);
    sampler.Open(open);
    return sampler.NeedsLogits({0, 10});
  };
  EXPECT_FALSE(
      needs({.sampler = {.temperature = 0, .top_p = 0.5f, .min_p = 0.1f, .top_k = 5}}));  // greedy all the same
  EXPECT_FALSE(needs({.sampler = {.temperature = 2}}));
  EXPECT_TRUE(needs({.sampler = {.top_p = 0.5f}}));
  EXPECT_TRUE(needs({.sampler = {.min_p = 0.5f}}));
  EXPECT_TRUE(needs({.sampler = {.top_k = 5}}));
  EXPECT_TRUE(needs({.sampler = {.num_logprobs = 0}}));
  EXPECT_TRUE(needs({.sampler = {.repetition_penalty = 2}, .history = {1}}));
  EXPECT_TRUE(needs({.sampler = {.min_tokens = 3}, .prompt_length = 8, .masked_tokens = {1}}));
  EXPECT_FALSE(needs({.sampler = {.min_tokens = 3}, .prompt_length = 7, .masked_tokens = {1}}));
}

TEST_F(SamplerTest, PenaltiesAndMinTokens) {
  // Token 0 twice in the answer, token 1 in the prompt.
  OpenSequence open = {.sampler = {.temperature = 0}, .prompt_length = 1, .history = {1, 0, 0}};
  EXPECT_EQ(One(open, {3, 2, 1}).token, 0);
  open.sampler.frequency_penalty = 0.6f;
  EXPECT_EQ(One(open, {3, 2, 1}).token, 1);  // 1.8, 2, 1
  open.sampler.frequency_penalty = 0;
  open.sampler.presence_penalty = 1.5f;
  EXPECT_EQ(One(open, {3, 2, 1}).token, 1);
  open.sampler.presence_penalty = 0;
  open.sampler.repetition_penalty = 4;  // the prompt's tokens count too: 0.75, 0.5, 1
  EXPECT_EQ(One(open, {3, 2, 1}).token, 2);
  EXPECT_EQ(One(open, {-3, -2, -7}).token, 2);  // negative logits grow: -12, -8, -7

  OpenSequence minimum = {.sampler = {.temperature = 0, .min_tokens = 3}, .prompt_length = 10, .masked_tokens = {0}};
  EXPECT_EQ(One(minimum, {3, 2, 1}, 12).token, 1);
  EXPECT_EQ(One(minimum, {3, 2, 1}, 13).token, 0);
}

TEST_F(SamplerTest, CountsItsOwnTokens) {
  Sampler sampler(1, 3, 1);
  sampler.Open({.sampler = {.temperature = 0, .frequency_penalty = 1}, .prompt_length = 1, .history = {2}});
  std::vector<int32_t> drawn;
  for (int i = 0; i < 4; ++i) {
    std::vector<float> logits = {2.5f, 2, 0};
    std::vector<StepResult::Token> tokens;
    sampler.Sample(*context_, Tensor(logits.data(), DType::kFloat32, {1, 3}), {{{0, 1 + i}}}, tokens);
    drawn.push_back(tokens[0].sampled.token);
  }
  EXPECT_EQ(drawn, (std::vector<int32_t>{0, 1, 0, 1}));
}

TEST_F(SamplerTest, LogprobsAreOfTheRawLogits) {
  const OpenSequence open = {
      .sampler = {.temperature = 0, .repetition_penalty = 10, .num_logprobs = 2}, .prompt_length = 1, .history = {1}};
  const TokenLogprob drawn = One(open, {1, 3, 2});
  const double log_sum = std::log(std::exp(1.0) + std::exp(3.0) + std::exp(2.0));
  EXPECT_EQ(drawn.token, 2);
  EXPECT_NEAR(drawn.logprob, 2 - log_sum, 1e-6);
  ASSERT_EQ(drawn.top.size(), 2u);
  EXPECT_EQ(drawn.top[0].first, 1);
  EXPECT_NEAR(drawn.top[0].second, 3 - log_sum, 1e-6);
  EXPECT_EQ(One({.sampler = {.temperature = 0}}, {1, 3, 2}).top.size(), 0u);
}

}  // namespace
}  // namespace cairn
