// Answers to mathematics problems: what is equivalent, and what only looks so.
#include "launcher/eval/math_answer.h"

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "launcher/eval/answer_text.h"
#include "launcher/eval/math_expression.h"

namespace cairn {
namespace {

TEST(AnswerTextTest, TheLastBox) {
  EXPECT_EQ(LastBoxed("so \\boxed{3}, no: \\boxed{\\frac{1}{2}}."), "\\frac{1}{2}");
  EXPECT_EQ(LastBoxed("\\boxed{ \\left\\{ 1, 2 \\right\\} }"), "\\left\\{ 1, 2 \\right\\}");
  EXPECT_EQ(LastBoxed("\\boxed 42."), "42");
  EXPECT_EQ(LastBoxed("\\fbox{x}"), "x");
  EXPECT_EQ(LastBoxed("\\boxed{7} and then \\boxed{8"), "7");  // cut off: the last whole one
  EXPECT_EQ(LastBoxed("\\boxed{a\\}b}"), "a\\}b");
  EXPECT_EQ(LastBoxed("boxed{3}"), std::nullopt);
  EXPECT_EQ(LastBoxed("ends with \\boxed"), std::nullopt);
  EXPECT_EQ(LastBoxed("\\boxed{}"), "");
}

TEST(AnswerTextTest, TheLastNumber) {
  EXPECT_EQ(LastNumber("He has 3 apples, so $1,234.50 in all."), "1234.5");
  EXPECT_EQ(LastNumber("20 - 3"), "3");
  EXPECT_EQ(LastNumber("20-3"), "3");   // a subtraction
  EXPECT_EQ(LastNumber("(a)-3"), "3");  // too
  EXPECT_EQ(LastNumber("x = -3"), "-3");
  EXPECT_EQ(LastNumber("-3"), "-3");
  EXPECT_EQ(LastNumber("costs .50 each"), "0.5");
  EXPECT_EQ(LastNumber("in 2024."), "2024");
  EXPECT_EQ(LastNumber("1{,}000"), "1000");
  EXPECT_EQ(LastNumber("007"), "7");
  EXPECT_EQ(LastNumber("about 5,"), "5");
  EXPECT_EQ(LastNumber("none"), std::nullopt);
}

TEST(AnswerTextTest, PlainNumbers) {
  EXPECT_EQ(PlainNumber("+1,234,567.80"), "1234567.8");
  EXPECT_EQ(PlainNumber("-0.0"), "0");
  EXPECT_EQ(PlainNumber("025"), "25");
  EXPECT_EQ(PlainNumber("5."), "5");
  EXPECT_EQ(PlainNumber(".5"), "0.5");
  for (const char* text : {"", "-", ".", "1,23", "12,34", ",123", "1,2345", "1.2.3", "1e5", "five", "1 2"}) {
    EXPECT_EQ(PlainNumber(text), std::nullopt) << text;
  }
}

TEST(AnswerTextTest, WhatFollowsTheThinking) {
  EXPECT_EQ(AfterThinking("<think>1 or 2?</think>\n 2 \n"), "2");
  EXPECT_EQ(AfterThinking("a</think>b</think>c"), "c");
  EXPECT_EQ(AfterThinking(" no marks "), "no marks");
  EXPECT_EQ(AfterThinking("<think>cut"), "<think>cut");
}

using Pair = std::pair<const char*, const char*>;

TEST(MathAnswerTest, EquivalentAnswers) {
  const Pair pairs[] = {
      // Fractions
      {"\\frac12", "\\frac{1}{2}"},
      {"\\dfrac{1}{2}", "0.5"},
      {"\\tfrac1{72}", "1/72"},
      {"1/2", "\\frac{1}{2}"},
      {"\\frac{3}{6}", "\\frac{1}{2}"},
      {"-\\frac{1}{2}", "\\frac{-1}{2}"},
      {"1\\frac{1}{2}", "1.5"},
      {"11\\frac14", "\\frac{45}{4}"},
      // Spaces, sizes, signs
      {"\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"},
      {"3 x + 1", "3x+1"},
      {"10\\,000", "10000"},
      {"\\!\\!5", "5"},
      {"$5$", "5"},
      {"\\( 5 \\)", "5"},
      {"−5", "-5"},
      // Units, currency, degrees, percent
      {"5\\text{ cm}", "5"},
      {"5\\text{ cm}^2", "5"},
      {"5 \\mbox{ inches}", "5"},
      {"12 miles per hour", "12"},
      {"5 cm^2", "5"},
      {"\\$18.90", "18.9"},
      {"18^\\circ", "18"},
      {"18^{\\circ}", "18"},
      {"50\\%", "50"},
      {"\\frac{3}{4}\\text{ cups}", "0.75"},
      // Thousands
      {"10,000", "10000"},
      {"1{,}000", "1000"},
      {"\\$1,234,567", "1234567"},
      // Names, words, choices
      {"x = 5", "5"},
      {"f(x) = x^2", "x^2"},
      {"\\text{Evelyn}", "Evelyn"},
      {"even", "\\text{Even}"},
      {"\\text{(C)}", "C"},
      {"(C)", "C"},
      {"\\textbf{(C)}", "(C)"},
      {"5.", "5"},
      {"5.0", "5"},
      {"025", "25"},
      // Lists and intervals
      {"(1, 2)", "(1,2)"},
      {"(\\frac12, 3)", "(0.5, 3.0)"},
      {"1, -2", "-2, 1"},
      {"1 \\text{ and } -2", "-2,1"},
      {"\\{1,2,3\\}", "\\{3,1,2\\}"},
      {"[0, 1)", "[0,1)"},
      // Expressions
      {"\\sqrt3", "\\sqrt{3}"},
      {"2\\sqrt{3}", "\\sqrt{12}"},
      {"\\sqrt[3]{8}", "2"},
      {"(x+1)^2", "x^2+2x+1"},
      {"\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}"},
      {"2\\pi r", "2 r \\pi"},
      {"x^{2}", "x^2"},
      {"x^{10}", "x^{5}\\cdot x^{5}"},
      {"2^{-1}", "\\frac12"},
      {"3 \\cdot 4", "12"},
      {"p - q", "-q+p"},
      {"y = 2x + 2", "y = 2(x+1)"},
  };
  for (const auto& [a, b] : pairs) {
    EXPECT_TRUE(MathEqual(a, b)) << a << " and " << b << ": " << NormalizeMath(a) << " and " << NormalizeMath(b);
    EXPECT_TRUE(MathEqual(b, a)) << b << " and " << a;
  }
}

TEST(MathAnswerTest, DifferentAnswers) {
  const Pair pairs[] = {
      {"\\frac{1}{2}", "\\frac{2}{1}"},
      {"\\frac{1}{2}", "2"},
      {"0.333", "\\frac13"},
      {"5", "-5"},
      {"5", "50"},
      {"5", "5x"},
      {"5x", "5y"},
      {"(1,2)", "(2,1)"},
      {"[0,1)", "(0,1)"},
      {"(0,1]", "[0,1]"},
      {"1,2", "1"},
      {"1,1,2", "1,2,2"},
      {"1,234", "1, 2, 3, 4"},
      {"even", "neve"},
      {"x", "X"},
      {"A", "B"},
      {"2516_8", "2516"},
      {"x^2", "2x"},
      {"\\sqrt{2}", "2"},
      {"\\pi", "3.14159"},
      {"", "0"},
      {"", ""},
      {"10^6", "106"},
      {"\\frac{1}{0}", "\\frac{2}{0}"},
  };
  for (const auto& [a, b] : pairs) {
    if (std::string(a) == b) continue;
    EXPECT_FALSE(MathEqual(a, b)) << a << " and " << b;
    EXPECT_FALSE(MathEqual(b, a)) << b << " and " << a;
  }
}

// Whatever a model writes: no crash, no endless loop.
TEST(MathAnswerTest, Nonsense) {
  const std::string deep(100'000, '('), braces(100'000, '{'), minus(100'000, '-');
  for (const std::string& text :
       {deep, braces, minus, std::string("\\frac"), std::string("\\frac{"), std::string("\\sqrt["), std::string("^"),
        std::string("\\text{"), std::string("1+"), std::string("\\"), std::string("}{"), std::string("\\frac{1}"),
        std::string("\xff\xfe"), std::string("x_{"), std::string("="), std::string("(,)"), std::string(3000, 'x')}) {
    MathEqual(text, "1");
    MathEqual("1", text);
    MathEqual(text, text);
  }
  EXPECT_EQ(EvaluateMath("", 0), std::nullopt);
  EXPECT_EQ(EvaluateMath("1+", 0), std::nullopt);
  EXPECT_EQ(EvaluateMath("\\frac{1}{0}", 0), std::nullopt);
  EXPECT_EQ(EvaluateMath("even", 0), std::nullopt);
}

}  // namespace
}  // namespace cairn
