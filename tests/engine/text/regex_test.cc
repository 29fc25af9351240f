#include "engine/text/regex.h"

#include <vector>

#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  const auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<std::string> found;
  if (!regex.ok()) return found;
  Regex::Scratch scratch;
  size_t begin = 0, end = 0;
  while (regex->Find(text, end, &scratch, &begin, &end)) found.push_back(text.substr(begin, end - begin));
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, PatternsOfTheTokenizers) {
  EXPECT_EQ(Matches(R"((?i:'s|'ll)|\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "It'S 12345 ok!  x"),
            (Strings{"It", "'S", " ", "123", "45", " ", "ok", "!", " ", " ", "x"}));
  // Case folding beyond ASCII, as Oniguruma has it: the long s and the Kelvin sign.
  EXPECT_EQ(Matches("(?i:'s|k)", "'\u017F \u212A"), (Strings{"'\u017F", "\u212A"}));
  EXPECT_EQ(Matches(R"([^\r\n\p{L}]?\p{L}++|.)", "_ab\nc"), (Strings{"_ab", "c"}));
  EXPECT_EQ(Matches(R"((?<=a)b|(?<!a)c|(?>d+)e)", "abacc dde"), (Strings{"b", "c", "dde"}));
}

// The members of \s are White_Space: not U+180E, which PCRE2 takes.
TEST(Regex, Space) {
  std::string all;
  std::vector<std::string> spaces, others;
  for (char32_t c = 1; c < 0x3100; ++c) {
    std::string text;
    AppendUtf8(c, &text);
    all += text;
    (IsUnicodeSpace(c) ? spaces : others).push_back(text);
  }
  EXPECT_EQ(spaces.size(), 25u);
  EXPECT_EQ(Matches(R"(\s)", all), spaces);
  EXPECT_EQ(Matches(R"([\s\s])", all), spaces);
  EXPECT_EQ(Matches(R"(\S)", all), others);
  EXPECT_EQ(Matches(R"([^\s])", all), others);
}

TEST(Regex, CategoriesOfUnicode16) {
  EXPECT_EQ(Matches(R"(\p{L})", "\U0002EBF0 \U00010D50").size(), 2u);
  EXPECT_EQ(Matches(R"(\P{L})", "\U0002EBF0").size(), 0u);
  EXPECT_EQ(Matches(R"(\p{^N})", "\U00010D40").size(), 0u);
  EXPECT_EQ(Matches(R"(\d)",
                    "\U00010D40"
                    "7")
                .size(),
            2u);
  EXPECT_EQ(Matches(R"([\p{Lu}\p{M}\p{P}\p{S}])", "\u1C89\u0897\u1B7F\u31EF").size(), 4u);
}

TEST(Regex, WhatIsNotSupportedIsRefused) {
  for (const char* pattern :
       {"^a",        "a$",     R"(\w)",  R"(\b)",       R"(\h)",          R"(\p{Han})", R"(\p{Foo})",
        R"(\pL)",    "[a[b]]", "[a&&b]", "[[:alpha:]]", R"([\S])",        R"([\P{L}])", "a{1,2}+",
        "a{,2}",     "(?i)a",  "(?m:a)", "(?<n>a)",     "(a+)+b",         "(?:a*b)*c",  "((a+))*c",
        "(*ACCEPT)", "a)",     R"(\)",   R"(\1)",       R"((?i:\p{Lu}))", "[]a]",       "[a",
        "a{2",       "[\\"}) {
    EXPECT_EQ(Regex::Compile(pattern).status().code(), absl::StatusCode::kInvalidArgument) << pattern;
  }
  for (const char* pattern : {"", "a*", "a?", "a|"}) {
    EXPECT_THAT(std::string(Regex::Compile(pattern).status().message()), testing::HasSubstr("empty string")) << pattern;
  }
}

TEST(Regex, LongTexts) {
  const std::string spaces(4 << 20, ' ');
  EXPECT_EQ(Matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", spaces + "x").size(), 2u);
  EXPECT_EQ(Matches(R"(\p{L}+)", std::string(4 << 20, 'x')).size(), 1u);
}

}  // namespace
}  // namespace cairn
