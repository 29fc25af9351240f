// The pieces of IncrementalDetokenizer are Decode of the whole, whatever the ids.
#include <chrono>
#include <random>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

using nlohmann::json;

constexpr const char* kSmall[] = {"qwen2", "llama3", "gpt2", "smollm", "deepseek3", "llama2", "metaspace"};

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special_tokens) {
  IncrementalDetokenizer detokenizer(tokenizer, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) {
    const std::string piece = detokenizer.Add(id);
    EXPECT_TRUE(IsValidUtf8(piece));
    text += piece;
  }
  return text + detokenizer.Finish();
}

// Ids of single bytes (byte-level or byte fallback), so that characters are cut everywhere.
std::vector<int32_t> ByteIds(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.TokenBytes(id).size() == 1) ids.push_back(id);
  }
  return ids;
}

TEST(IncrementalDetokenizer, RandomIds) {
  for (const char* name : kSmall) {
    SCOPED_TRACE(name);
    const std::unique_ptr<Tokenizer> tokenizer = LoadSmallTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    const std::vector<int32_t> bytes = ByteIds(*tokenizer);
    std::mt19937 random(1);
    std::uniform_int_distribution<int32_t> any(-2, tokenizer->vocab_size() + 2);  // ids that do not exist, too
    for (int round = 0; round < 2000; ++round) {
      std::vector<int32_t> ids(random() % 24);
      const uint32_t bytes_of_8 = random() % 9;
      for (int32_t& id : ids) id = random() % 8 < bytes_of_8 ? bytes[random() % bytes.size()] : any(random);
      const bool skip = random() % 2 == 0;
      ASSERT_EQ(Stream(*tokenizer, ids, skip), tokenizer->Decode(ids, skip)) << json(ids).dump();
    }
  }
}

// A character appears with its last byte, and not before.
TEST(IncrementalDetokenizer, CharactersAreWhole) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadSmallTokenizer("gpt2");
  auto byte = [&](const std::string& token) { return tokenizer->TokenToId(token); };
  IncrementalDetokenizer detokenizer(*tokenizer, /*skip_special_tokens=*/true);
  EXPECT_EQ(detokenizer.Add(byte("ð")), "");  // F0 9F 99 82: U+1F642
  EXPECT_EQ(detokenizer.Add(byte("Ł")), "");
  EXPECT_EQ(detokenizer.Add(byte("Ļ")), "");
  EXPECT_EQ(detokenizer.Add(byte("Ĥ")), "🙂");
  EXPECT_EQ(detokenizer.Add(byte("ð")), "");
  EXPECT_EQ(detokenizer.Add(byte("a")), "\uFFFDa");
  EXPECT_EQ(detokenizer.Add(byte("â")), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

TEST(IncrementalDetokenizer, ByteFallbackSettlesWithTheNextToken) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadSmallTokenizer("llama2");
  auto id = [&](const std::string& token) { return tokenizer->TokenToId(token); };
  IncrementalDetokenizer detokenizer(*tokenizer, /*skip_special_tokens=*/true);
  EXPECT_EQ(detokenizer.Add(id("▁the")), "the");  // the first space is stripped
  EXPECT_EQ(detokenizer.Add(id("<0xC3>")), "");
  EXPECT_EQ(detokenizer.Add(id("<0xA9>")), "");
  EXPECT_EQ(detokenizer.Add(id("▁the")), "é the");
  EXPECT_EQ(detokenizer.Add(id("<0xC3>")), "");
  EXPECT_EQ(detokenizer.Add(id("<0xA9>")), "");
  EXPECT_EQ(detokenizer.Add(id("<0xFF>")), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(detokenizer.Add(id("▁the")), "the");  // a new sequence
}

TEST(IncrementalDetokenizer, LongAnswersTakeLinearTime) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadSmallTokenizer("llama2");
  const int32_t byte = tokenizer->TokenToId("<0xC3>");
  const auto begin = std::chrono::steady_clock::now();
  IncrementalDetokenizer detokenizer(*tokenizer, /*skip_special_tokens=*/true);
  size_t size = 0;
  for (int i = 0; i < 500'000; ++i) size += detokenizer.Add(byte).size();
  size += detokenizer.Finish().size();
  EXPECT_EQ(size, 1'500'000u);
  // Quadratic work would be hours; the bound is generous for sanitizers.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

// A decoder after the tests' own taste: "tokens" without merges.
std::unique_ptr<Tokenizer> WithDecoder(const json& decoder) {
  const json file = {{"model",
                      {{"type", "BPE"},
                       {"vocab",
                        {{" ", 0},
                         {"a", 1},
                         {" a", 2},
                         {"a ", 3},
                         {"  ", 4},
                         {"_", 5},
                         {"_a", 6},
                         {"<0x41>", 7},
                         {"<0xE2>", 8},
                         {"", 9}}},
                       {"merges", json::array()}}},
                     {"decoder", decoder}};
  const TemporaryDirectory directory;
  directory.Write("tokenizer.json", file.dump());
  return LoadTokenizer(directory.path());
}

// Hugging Face's Strip of the fused text: at most `start` and `stop` of the character, from the ends.
std::string Stripped(std::string text, size_t start, size_t stop) {
  while (start-- > 0 && !text.empty() && text.front() == ' ') text.erase(0, 1);
  while (stop-- > 0 && !text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

TEST(IncrementalDetokenizer, StripsBothEndsOfTheWhole) {
  const json fuse = {{"type", "Fuse"}};
  std::mt19937 random(2);
  for (int start = 0; start < 4; ++start) {
    for (int stop = 0; stop < 4; ++stop) {
      const json strip = {{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", stop}};
      const auto tokenizer = WithDecoder({{"type", "Sequence"}, {"decoders", {fuse, strip}}});
      const auto plain = WithDecoder(fuse);
      ASSERT_NE(tokenizer, nullptr);
      for (int round = 0; round < 300; ++round) {
        std::vector<int32_t> ids(random() % 9);
        for (int32_t& id : ids) id = static_cast<int32_t>(random() % 5);
        ASSERT_EQ(Stream(*tokenizer, ids, false), Stripped(plain->Decode(ids, false), start, stop)) << json(ids).dump();
        ASSERT_EQ(tokenizer->Decode(ids, false), Stripped(plain->Decode(ids, false), start, stop)) << json(ids).dump();
      }
    }
  }
}

TEST(IncrementalDetokenizer, OtherDecoders) {
  const std::vector<int32_t> ids = {5, 6, 1, 6, 9, 3};
  // Without one: a space between the tokens, the empty one included.
  EXPECT_EQ(WithDecoder(nullptr)->Decode(ids, false), "_ _a a _a  a ");
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(WithDecoder(metaspace)->Decode(ids, false), " aa aa ");
  const json never = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "never"}};
  EXPECT_EQ(WithDecoder(never)->Decode(ids, false), "  aa aa ");
  // Strip before Fuse is of each token.
  const json strip = {{"type", "Strip"}, {"content", "a"}, {"start", 1}, {"stop", 0}};
  EXPECT_EQ(WithDecoder(strip)->Decode(ids, false), "__a_a ");
  const json regex = {{"type", "Replace"}, {"pattern", {{"Regex", "_a?"}}}, {"content", "-"}};
  EXPECT_EQ(WithDecoder(regex)->Decode(ids, false), "--a-a ");
}

}  // namespace
}  // namespace cairn
