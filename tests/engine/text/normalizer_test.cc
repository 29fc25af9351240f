#include "engine/text/normalizer.h"

#include <random>

#include "engine/text/utf8.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

TEST(NormalizeUnicode, Forms) {
  EXPECT_EQ(NormalizeUnicode("e\u0301 \u212B \uFB01", NormalForm::kNfc), "\u00E9 \u00C5 \uFB01");
  EXPECT_EQ(NormalizeUnicode("\u00E9 \uFB01", NormalForm::kNfd), "e\u0301 \uFB01");
  EXPECT_EQ(NormalizeUnicode("e\u0301 \uFB01 \uFF21", NormalForm::kNfkc), "\u00E9 fi A");
  EXPECT_EQ(NormalizeUnicode("\u00E9 \uFB01", NormalForm::kNfkd), "e\u0301 fi");
  EXPECT_EQ(NormalizeUnicode("\u1100\u1161\u11A8", NormalForm::kNfc), "\uAC01");
  EXPECT_EQ(NormalizeUnicode("\uAC01", NormalForm::kNfd), "\u1100\u1161\u11A8");
  EXPECT_EQ(NormalizeUnicode("\uAC00\u11A7\u11A8", NormalForm::kNfc), "\uAC00\u11A7\u11A8");
  // Marks are ordered by class, and equal classes keep their order.
  EXPECT_EQ(NormalizeUnicode("q\u0301\u0323\u0300", NormalForm::kNfd), "q\u0323\u0301\u0300");
  EXPECT_EQ(NormalizeUnicode("", NormalForm::kNfc), "");
  EXPECT_EQ(NormalizeUnicode(std::string("\0a", 2), NormalForm::kNfc), std::string("\0a", 2));
}

// Characters that are newer than Unicode 11 stand still, and nothing moves past them.
TEST(NormalizeUnicode, NewerCharactersAreInert) {
  EXPECT_EQ(NormalizeUnicode("\U00011935\U00011930", NormalForm::kNfc), "\U00011935\U00011930");
  EXPECT_EQ(NormalizeUnicode("a\u0301\u0898\u0327", NormalForm::kNfd), "a\u0301\u0898\u0327");
  EXPECT_EQ(NormalizeUnicode("\u32FF", NormalForm::kNfkc), "\u32FF");
  EXPECT_EQ(NormalizeUnicode("\u32FF", NormalForm::kNfc), "\u32FF");
}

TEST(NormalizeUnicode, IsIdempotentAndKeepsMeaning) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    while (random() % 12 != 0) {
      static constexpr char32_t kStarts[] = {0x20,   0xC0,   0x300,  0x320,  0x5B0,  0x930,
                                             0x1100, 0x1E00, 0x3040, 0xAC00, 0xF900, 0x1D15E};
      AppendUtf8(kStarts[random() % std::size(kStarts)] + random() % 0x40, &text);
    }
    const std::string nfc = NormalizeUnicode(text, NormalForm::kNfc), nfd = NormalizeUnicode(text, NormalForm::kNfd);
    ASSERT_EQ(NormalizeUnicode(nfc, NormalForm::kNfc), nfc);
    ASSERT_EQ(NormalizeUnicode(nfd, NormalForm::kNfd), nfd);
    ASSERT_EQ(NormalizeUnicode(nfd, NormalForm::kNfc), nfc);
    ASSERT_EQ(NormalizeUnicode(nfc, NormalForm::kNfd), nfd);
  }
}

TEST(Utf8, LossyDecoding) {
  struct Case {
    const char* bytes;
    const char* text;
  };
  // The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
  const Case cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
  };
  for (const Case& c : cases) {
    std::string whole, parts, pending;
    AppendLossyUtf8(c.bytes, /*at_end=*/true, &whole);
    EXPECT_EQ(whole, c.text);
    for (const char* byte = c.bytes; *byte != '\0'; ++byte) {
      pending += *byte;
      pending.erase(0, AppendLossyUtf8(pending, /*at_end=*/false, &parts));
      EXPECT_LE(pending.size(), 3u);
    }
    AppendLossyUtf8(pending, /*at_end=*/true, &parts);
    EXPECT_EQ(parts, c.text);
  }
}

}  // namespace
}  // namespace cairn
