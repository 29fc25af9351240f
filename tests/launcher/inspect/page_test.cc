// The two forms of an inspect report, and the page: what it holds, whatever the tokens are.
#include "launcher/inspect/page.h"

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/inspect/inspect_report.h"
#include "launcher/inspect/token_texts.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

using nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// 2 layers of 1 head; 6 tokens, of which 5 were fed; layer 0 kept 0 and 3 of the first 4.
InspectReport SmallReport() {
  InspectReport report = {
      .model = "/models/\xff</script>",
      .settings = {{"kv_budget", "2"}},
      .budgets = {2, 4},
      .token_ids = {5, 6, 7, 8, 9, 10},
      .tokens = {{"<s>", true}, {" a"}, {"</script><!--"}, {"\"\\\n\x01"}, {""}, {"\xF0\x9F\x98\x80"}},
      .prompt_tokens = 3,
      .finish_reason = "length",
      .history = KeepHistory(2, 1)};
  report.compression.algorithm = "rkv";
  EXPECT_TRUE(
      report.history.Add({.request_id = "a", .logical_length = 4, .layer = 0, .kv_head = 0, .positions = {0, 3}}).ok());
  return report;
}

std::string DataOf(const std::string& page) {
  const std::string begin = R"(<script id="data" type="application/json">)", end = "</script>";
  const size_t at = page.find(begin) + begin.size();
  return page.substr(at, page.find(end, at) - at);
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(CharactersOfTest, ACharacterBelongsToTheTokenThatCompletesIt) {
  const auto characters = [](std::vector<std::string> bytes) { return CharactersOf(bytes); };
  EXPECT_THAT(characters({"ab", "c"}), ElementsAre("ab", "c"));
  EXPECT_THAT(characters({" \xF0\x9F", "\x98", "\x80!"}), ElementsAre(" ", "", "\xF0\x9F\x98\x80!"));
  EXPECT_THAT(characters({"\xE2\x82", "\xAC\xE2\x82", "\xAC"}), ElementsAre("", "\xE2\x82\xAC", "\xE2\x82\xAC"));
}

TEST(CharactersOfTest, BytesThatMakeNoCharacterAreReplaced) {
  const auto characters = [](std::vector<std::string> bytes) { return CharactersOf(bytes); };
  EXPECT_THAT(characters({"a\xff", "b"}), ElementsAre("a\xEF\xBF\xBD", "b"));
  EXPECT_THAT(characters({"\xF0\x9F", "b"}), ElementsAre("",
                                                         "\xEF\xBF\xBD"
                                                         "b"));
  EXPECT_THAT(characters({"a", "\xF0\x9F"}), ElementsAre("a", "\xEF\xBF\xBD"));
  EXPECT_THAT(CharactersOf({}), ElementsAre());
}

TEST(ReportJsonTest, SaysWhatEveryHeadKept) {
  const ordered_json json = ordered_json::parse(ReportJson(SmallReport()));
  EXPECT_EQ(json["events"].size(), 1u);
  EXPECT_EQ(json["events"][0]["logical_length"], 4);
  EXPECT_EQ(json["events"][0]["kept"].dump(), "[[[[0,1],[3,4]]],[[[0,4]]]]");
  EXPECT_EQ(json["final"]["logical_length"], 5);
  EXPECT_EQ(json["final"]["kept"].dump(), "[[[[0,1],[3,5]]],[[[0,5]]]]");
  const ordered_json& tokens = json["tokens"];
  ASSERT_EQ(tokens.size(), 6u);
  EXPECT_EQ(tokens[0].dump(), R"({"position":0,"id":5,"text":"<s>","special":true,"part":"prompt","held_by":2})");
  EXPECT_EQ(tokens[1]["held_by"], 1);
  EXPECT_EQ(tokens[3]["part"], "answer");
  EXPECT_EQ(tokens[5]["held_by"], 0) << "the last token was never fed";
  EXPECT_EQ(json["model"], "/models/\xEF\xBF\xBD</script>");
  EXPECT_EQ(json["answer_tokens"], 3);
  EXPECT_EQ(json["settings"]["kv_budget"], "2");
  EXPECT_EQ(json["compression"]["algorithm"], "rkv");
  EXPECT_DOUBLE_EQ(SmallReport().MeanHeld(), 4);
}

TEST(PageDataTest, OneNumberForEachLayerHeadAndPosition) {
  const ordered_json data = PageData(SmallReport());
  std::string bytes;
  ASSERT_TRUE(absl::Base64Unescape(data["evicted_at"]["base64"].get<std::string>(), &bytes));
  EXPECT_EQ(data["evicted_at"]["bytes"], 1);
  EXPECT_EQ(bytes, std::string("\0\1\1\0\0"
                               "\0\0\0\0\0",
                               10));
  EXPECT_EQ(data["special"].dump(), "[0]");
  EXPECT_EQ(data["events"].dump(), "[4]");
}

TEST(PageDataTest, ManyEventsTakeTwoBytes) {
  InspectReport report = SmallReport();
  report.history = KeepHistory(1, 1);
  report.tokens.resize(1002);
  for (int32_t event = 1; event <= 300; ++event) {
    const int32_t last = event + 1;
    ASSERT_TRUE(
        report.history.Add({.request_id = "a", .logical_length = last + 1, .positions = {last - 1, last}}).ok());
  }
  const ordered_json data = PageData(report);
  std::string bytes;
  ASSERT_TRUE(absl::Base64Unescape(data["evicted_at"]["base64"].get<std::string>(), &bytes));
  EXPECT_EQ(data["evicted_at"]["bytes"], 2);
  ASSERT_EQ(bytes.size(), 2002u);
  const auto at = [&](int position) {
    return static_cast<uint8_t>(bytes[2 * position]) | static_cast<uint8_t>(bytes[2 * position + 1]) << 8;
  };
  EXPECT_EQ(at(299), 300);
  EXPECT_EQ(at(9), 10);
  EXPECT_EQ(at(300), 0);
}

TEST(PageTest, TheDataInItParsesBack) {
  const std::string page = BuildPage(PageData(SmallReport()));
  const ordered_json data = ordered_json::parse(DataOf(page));
  ordered_json expected = PageData(SmallReport());
  expected["model"] = "/models/\xEF\xBF\xBD</script>";  // of what is not UTF-8 there is no JSON
  EXPECT_EQ(data, expected);
  EXPECT_EQ(data["texts"][2], "</script><!--");
  EXPECT_EQ(data["texts"][3], "\"\\\n\x01");
}

TEST(PageTest, TokensCannotBreakOutOfTheirScript) {
  const std::string page = BuildPage(PageData(SmallReport()));
  EXPECT_EQ(Count(DataOf(page), "<"), 0);
  EXPECT_EQ(Count(page, "<script"), 3);
  EXPECT_EQ(Count(page, "</script>"), 3);
  EXPECT_EQ(Count(page, "<!--"), 0);
}

TEST(PageTest, LoadsNothing) {
  const std::string page = BuildPage(PageData(SmallReport()));
  for (const char* word : {"http:", "https:", "src=", "@import", "url(", "fetch(", "import(", "href="}) {
    EXPECT_EQ(Count(page, word), 0) << word;
  }
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  EXPECT_THAT(page, Not(HasSubstr("/*data*/")));
  EXPECT_THAT(page, Not(HasSubstr("/*page*/")));
  EXPECT_THAT(page.substr(0, 15), "<!doctype html>");
}

}  // namespace
}  // namespace cairn
