#include "engine/text/reasoning_parser.h"

#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

class ReasoningParser : public testing::Test {
 protected:
  // <think> and </think> are tokens of "qwen2" and not of "gpt2".
  std::unique_ptr<Tokenizer> with_markers_ = LoadSmallTokenizer("qwen2");
  std::unique_ptr<Tokenizer> without_markers_ = LoadSmallTokenizer("gpt2");

  ReasoningSplit Split(ReasoningFormat format, const std::string& text, bool with_markers = true) const {
    const Tokenizer& tokenizer = with_markers ? *with_markers_ : *without_markers_;
    return SplitReasoning(format, tokenizer, text, tokenizer.Encode(text, /*add_special_tokens=*/false));
  }
  int64_t Count(const std::string& text, bool with_markers = true) const {
    const Tokenizer& tokenizer = with_markers ? *with_markers_ : *without_markers_;
    return static_cast<int64_t>(tokenizer.Encode(text, /*add_special_tokens=*/false).size());
  }
};

TEST_F(ReasoningParser, Names) {
  EXPECT_EQ(*ParseReasoningFormat("none"), ReasoningFormat::kNone);
  EXPECT_EQ(*ParseReasoningFormat("deepseek_r1"), ReasoningFormat::kDeepSeekR1);
  EXPECT_EQ(*ParseReasoningFormat("qwen3"), ReasoningFormat::kQwen3);
  EXPECT_EQ(ParseReasoningFormat("granite").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReasoningParser, NoneLeavesTheTextAlone) {
  const ReasoningSplit split = Split(ReasoningFormat::kNone, "<think>a</think>b");
  EXPECT_FALSE(split.has_reasoning);
  EXPECT_EQ(split.content, "<think>a</think>b");
  EXPECT_EQ(split.reasoning_tokens, 0);
}

// The thinking keeps its line breaks, as in vLLM.
TEST_F(ReasoningParser, BothMarkers) {
  for (ReasoningFormat format : {ReasoningFormat::kDeepSeekR1, ReasoningFormat::kQwen3}) {
    for (bool with_markers : {true, false}) {
      const ReasoningSplit split = Split(format, "<think>\nadd the two\n</think>\n\n4", with_markers);
      EXPECT_TRUE(split.has_reasoning);
      EXPECT_EQ(split.reasoning_content, "\nadd the two\n");
      EXPECT_EQ(split.content, "\n\n4");
      if (with_markers) {
        EXPECT_EQ(split.reasoning_tokens, Count("\nadd the two\n"));
      }
    }
  }
}

TEST_F(ReasoningParser, OpenedByTheTemplate) {
  for (ReasoningFormat format : {ReasoningFormat::kDeepSeekR1, ReasoningFormat::kQwen3}) {
    const ReasoningSplit split = Split(format, "add</think>4");
    EXPECT_TRUE(split.has_reasoning);
    EXPECT_EQ(split.reasoning_content, "add");
    EXPECT_EQ(split.content, "4");
    EXPECT_EQ(split.reasoning_tokens, Count("add"));
  }
}

TEST_F(ReasoningParser, WithoutAnEnd) {
  const ReasoningSplit deepseek = Split(ReasoningFormat::kDeepSeekR1, "still thinking");
  EXPECT_TRUE(deepseek.has_reasoning);
  EXPECT_EQ(deepseek.reasoning_content, "still thinking");
  EXPECT_EQ(deepseek.content, "");
  EXPECT_EQ(deepseek.reasoning_tokens, Count("still thinking"));

  const ReasoningSplit opened = Split(ReasoningFormat::kDeepSeekR1, "<think>still");
  EXPECT_EQ(opened.reasoning_content, "still");
  EXPECT_EQ(opened.reasoning_tokens, Count("still"));

  const ReasoningSplit qwen3 = Split(ReasoningFormat::kQwen3, "<think>still");
  EXPECT_FALSE(qwen3.has_reasoning);
  EXPECT_EQ(qwen3.content, "<think>still");
  EXPECT_EQ(qwen3.reasoning_tokens, 0);
}

TEST_F(ReasoningParser, EmptyParts) {
  const ReasoningSplit split = Split(ReasoningFormat::kQwen3, "<think></think>");
  EXPECT_TRUE(split.has_reasoning);
  EXPECT_EQ(split.reasoning_content, "");
  EXPECT_EQ(split.content, "");
  EXPECT_EQ(split.reasoning_tokens, 0);
  const ReasoningSplit empty = SplitReasoning(ReasoningFormat::kDeepSeekR1, *with_markers_, "", {});
  EXPECT_TRUE(empty.has_reasoning);
  EXPECT_EQ(empty.reasoning_tokens, 0);
}

TEST_F(ReasoningParser, LaterMarkersBelongToTheAnswer) {
  const ReasoningSplit split = Split(ReasoningFormat::kDeepSeekR1, "a</think>the <think> and </think> tags");
  EXPECT_EQ(split.reasoning_content, "a");
  EXPECT_EQ(split.content, "the <think> and </think> tags");
  EXPECT_EQ(split.reasoning_tokens, 1);
}

// Tokens are counted by what they write where the markers are ordinary text.
TEST_F(ReasoningParser, CountsWithoutMarkerTokens) {
  const std::string thinking = " one two three";
  std::vector<int32_t> ids;
  for (const std::string part : {"<think>", thinking.c_str(), "</think>", " 3"}) {
    const std::vector<int32_t> more = without_markers_->Encode(part, /*add_special_tokens=*/false);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  const ReasoningSplit split =
      SplitReasoning(ReasoningFormat::kQwen3, *without_markers_, "<think>" + thinking + "</think> 3", ids);
  EXPECT_EQ(split.reasoning_content, thinking);
  EXPECT_EQ(split.reasoning_tokens, Count(thinking, /*with_markers=*/false));
}

// Markers that are special tokens are not in a text without these; a stop string may have shortened it.
TEST_F(ReasoningParser, SpecialMarkers) {
  nlohmann::json file = nlohmann::json::parse(ReadFile(TextDataDir() + "/tokenizers/qwen2/tokenizer.json"));
  for (nlohmann::json& token : file["added_tokens"]) token["special"] = true;
  const TemporaryDirectory directory;
  directory.Write("tokenizer.json", file.dump());
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(directory.path());
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<int32_t> ids = tokenizer->Encode("<think>add</think>it is 4. STOP", /*add_special_tokens=*/false);
  ASSERT_EQ(tokenizer->Decode(ids, /*skip_special_tokens=*/true), "addit is 4. STOP");
  const ReasoningSplit split = SplitReasoning(ReasoningFormat::kQwen3, *tokenizer, "addit is 4. ", ids);
  EXPECT_TRUE(split.has_reasoning);
  EXPECT_EQ(split.reasoning_content, "add");
  EXPECT_EQ(split.content, "it is 4. ");
  EXPECT_EQ(split.reasoning_tokens, Count("add"));
}

}  // namespace
}  // namespace cairn
