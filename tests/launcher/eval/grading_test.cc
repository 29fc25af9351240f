// What is taken for the answer, and when it is right.
#include "launcher/eval/grading.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;

bool Right(const Expectation& expected, const std::string& text) { return GradeAnswer(expected, text).right; }

TEST(GradingTest, Exact) {
  const Expectation expected = {.match = Match::kExact, .answers = {"#mE5$rE8%vA6", "second"}};
  EXPECT_TRUE(Right(expected, "fD=3+5;</think>\n#mE5$rE8%vA6"));
  EXPECT_TRUE(Right(expected, " second\n"));
  EXPECT_FALSE(Right(expected, "</think>#mE5$rE8%vA7"));
  EXPECT_FALSE(Right(expected, "#mE5$rE8%vA6 and more"));
  // The answer inside the thinking is none.
  EXPECT_FALSE(Right(expected, "second</think>"));
}

TEST(GradingTest, Numbers) {
  const Expectation expected = {.match = Match::kNumber, .answers = {"18"}};
  for (const char* text :
       {"\\boxed{18}", "she makes $18 every day.", "\\boxed{\\$18.00}", "\\boxed{18 \\text{ dollars}}",
        "\\boxed{x = 18}", "#### 18", "\\boxed{36/2}", "9 * 2 = 18.0", "\\boxed{she has 18}"}) {
    EXPECT_TRUE(Right(expected, text)) << text;
  }
  for (const char* text : {"", "no number", "\\boxed{17} not 18", "18 at first, then 20", "\\boxed{-18}", "1.8", "180",
                           "\\boxed{\\frac{1}{18}}", "<think>18</think>"}) {
    EXPECT_FALSE(Right(expected, text)) << text;
  }
  const Expectation thousands = {.match = Match::kNumber, .answers = {"70000"}};
  EXPECT_TRUE(Right(thousands, "a profit of $70,000"));
  EXPECT_EQ(GradeAnswer(thousands, "so 70,000 in all, 5 each").found, "5");
}

TEST(GradingTest, Mathematics) {
  const Expectation expected = {.match = Match::kMath, .answers = {"\\frac{1}{2}"}};
  EXPECT_TRUE(Right(expected, "Therefore \\boxed{0.5}."));
  EXPECT_TRUE(Right(expected, "1/2"));  // the whole of a short answer
  EXPECT_FALSE(
      Right(expected, "The answer, after a long way that nobody would call short, is the number \\frac{1}{2}."));
  EXPECT_FALSE(Right(expected, "\\boxed{2}"));
}

TEST(GradingTest, ContainsAllWhateverTheCase) {
  const Expectation expected = {.match = Match::kContains, .answers = {"sandwich", "Dolores Park"}};
  EXPECT_TRUE(Right(expected, "Eat a Sandwich in dolores park."));
  EXPECT_FALSE(Right(expected, "Eat a sandwich."));
}

TEST(GradingTest, RegularExpressions) {
  absl::StatusOr<AnswerRegex> regex = AnswerRegex::Compile("^(yes|ja)\\b");
  ASSERT_TRUE(regex.ok()) << regex.status();
  const Expectation expected = {.match = Match::kRegex, .regex = std::make_shared<const AnswerRegex>(*regex)};
  EXPECT_TRUE(Right(expected, "<think>no, </think> yes, it is"));
  EXPECT_FALSE(Right(expected, "oh yes"));
  EXPECT_FALSE(Right(expected, "yesterday"));
  EXPECT_THAT(std::string(AnswerRegex::Compile("(a").status().message()), HasSubstr("does not compile: missing"));
  // Backtracks beyond every limit: no match, soon.
  absl::StatusOr<AnswerRegex> slow = AnswerRegex::Compile("^(a|aa)+$");
  ASSERT_TRUE(slow.ok());
  EXPECT_FALSE(slow->Matches(std::string(10'000, 'a') + "b"));
}

TEST(GradingTest, WhatWasFoundIsShort) {
  const Grade grade = GradeAnswer({.match = Match::kExact, .answers = {"x"}}, std::string(1000, 'y'));
  EXPECT_EQ(grade.found.size(), 203u);
}

}  // namespace
}  // namespace cairn
