// What a Tokenizer says of its tokens, and that no text harms it. (Agreement with Hugging Face:
// tokenizer_reference_test.)
#include "engine/text/tokenizer.h"

#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "engine/text/utf8.h"
#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

using nlohmann::json;

constexpr const char* kSmall[] = {"qwen2", "llama3", "gpt2", "smollm", "deepseek3", "llama2", "metaspace"};

TEST(Tokenizer, TokensAndIds) {
  const auto tokenizer = LoadSmallTokenizer("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  const int32_t end = tokenizer->TokenToId("<|im_end|>"), think = tokenizer->TokenToId("<think>");
  EXPECT_EQ(tokenizer->IdToToken(end), "<|im_end|>");
  EXPECT_TRUE(tokenizer->IsSpecial(end));
  EXPECT_FALSE(tokenizer->IsSpecial(think));
  EXPECT_EQ(tokenizer->TokenBytes(end), "");
  EXPECT_EQ(tokenizer->TokenBytes(think), "<think>");
  EXPECT_EQ(tokenizer->vocab_size(), tokenizer->TokenToId("<tool_call>") + 1);
  EXPECT_EQ(tokenizer->IdToToken(tokenizer->TokenToId("Ġ")), "Ġ");
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->TokenToId("Ġ")), " ");
  EXPECT_EQ(tokenizer->TokenToId("no such token"), -1);
  for (int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->IdToToken(id), "");
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
    EXPECT_EQ(tokenizer->Decode({id}, false), "");
  }
}

TEST(Tokenizer, BytesOfTokensInTheMiddle) {
  const auto tokenizer = LoadSmallTokenizer("llama2");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->TokenToId("▁the")), " the");
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->TokenToId("<0xE2>")), "\xE2");
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->TokenToId("<s>")), "");
}

// All the bytes together are the text, where no character of it is unknown.
TEST(Tokenizer, BytesOfAllTokensAreTheText) {
  const std::string text = " It's 2024: naïve café, 日本語 🙂\n\tend";
  for (const char* name : {"qwen2", "llama3", "gpt2", "smollm", "deepseek3", "llama2"}) {
    const auto tokenizer = LoadSmallTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    std::string bytes;
    for (int32_t id : tokenizer->Encode(text, /*add_special_tokens=*/false)) bytes += tokenizer->TokenBytes(id);
    EXPECT_EQ(bytes, name == std::string("llama2") ? " " + text : text) << name;
  }
}

json SmallFile(const std::string& name) {
  return json::parse(ReadFile(TextDataDir() + "/tokenizers/" + name + "/tokenizer.json"));
}

TEST(Tokenizer, ConfigNamesTheEndsAndAddsThemWhereTheFileDoesNot) {
  json file = SmallFile("qwen2");
  ASSERT_TRUE(file["post_processor"].is_null());
  const TemporaryDirectory directory;
  directory.Write("tokenizer.json", file.dump());
  directory.Write("tokenizer_config.json",
                  R"({"bos_token": {"content": "<|im_start|>", "lstrip": false}, "eos_token": "<|im_end|>",
                      "add_bos_token": true, "add_eos_token": true})");
  const auto tokenizer = LoadTokenizer(directory.path());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->bos_token(), "<|im_start|>");
  EXPECT_EQ(tokenizer->eos_token(), "<|im_end|>");
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->TokenToId("<|im_start|>"));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->TokenToId("<|im_end|>"));
  const std::vector<int32_t> plain = tokenizer->Encode("a", false), with = tokenizer->Encode("a", true);
  EXPECT_EQ(with, (std::vector<int32_t>{tokenizer->bos_id(), plain[0], tokenizer->eos_id()}));
}

TEST(Tokenizer, WithoutAConfigThereAreNoEnds) {
  const auto tokenizer = LoadSmallTokenizer("gpt2");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->bos_token(), "");
  EXPECT_EQ(tokenizer->eos_id(), -1);
  EXPECT_EQ(tokenizer->chat_template(), "");
}

TEST(Tokenizer, InvalidUtf8IsReplaced) {
  for (const char* name : kSmall) {
    const auto tokenizer = LoadSmallTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_EQ(tokenizer->Encode("a\xC3 \xED\xA0\x80z\xF0\x9F", false),
              tokenizer->Encode("a\uFFFD \uFFFD\uFFFD\uFFFDz\uFFFD", false))
        << name;
  }
}

TEST(Tokenizer, RandomBytesAndIds) {
  std::mt19937 random(3);
  for (const char* name : kSmall) {
    SCOPED_TRACE(name);
    const auto tokenizer = LoadSmallTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    for (int round = 0; round < 1500; ++round) {
      std::string text(random() % 64, '\0');
      // All bytes; or lead and continuation bytes, so that many characters are valid; or ASCII.
      const int kind = static_cast<int>(random() % 3);
      for (char& c : text) {
        c = static_cast<char>(kind == 0 ? random() % 256 : kind == 1 ? 0x80 + random() % 0x75 : random() % 128);
      }
      const std::vector<int32_t> ids = tokenizer->Encode(text, round % 2 == 0);
      for (int32_t id : ids) ASSERT_TRUE(id >= 0 && id < tokenizer->vocab_size());
      ASSERT_TRUE(IsValidUtf8(tokenizer->Decode(ids, round % 3 == 0)));
    }
  }
}

// A byte-level tokenizer without a normalizer gives every text back.
TEST(Tokenizer, RoundTrip) {
  const auto tokenizer = LoadSmallTokenizer("smollm");
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(4);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    while (random() % 30 != 0) {
      const char32_t c = random() % (random() % 2 == 0 ? 0x100 : 0x110000);
      if (c < 0xD800 || c >= 0xE000) AppendUtf8(c, &text);
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, false), false), text);
  }
}

TEST(Tokenizer, SeveralThreadsAtOnce) {
  const auto tokenizer = LoadSmallTokenizer("llama3");
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = ReadFile(SourceDir() + "/tests/engine/text/tokenizer_test.cc");
  const std::vector<int32_t> expected = tokenizer->Encode(text, true);
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (size_t t = 0; t < equal.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) equal[t] += tokenizer->Encode(text, true) == expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 20));
}

std::string Repeat(std::string_view piece, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += piece;
  return text;
}

// Nothing takes quadratic time: a quarter of a megabyte each would be many minutes if it did.
TEST(Tokenizer, HostileTextsTakeLinearTime) {
  constexpr size_t kBytes = 1 << 18;
  std::mt19937 random(5);
  std::string letters(kBytes, ' ');
  for (char& c : letters) c = static_cast<char>('a' + random() % 26);
  const std::pair<const char*, std::string> texts[] = {
      {"one letter", Repeat("a", kBytes)},
      {"random letters", letters},
      {"a repeated word", Repeat("the", kBytes)},
      {"spaces", Repeat(" ", kBytes)},
      {"spaces before a word", Repeat(" ", kBytes) + "a"},
      {"line breaks", Repeat("\r\n", kBytes)},
      {"combining marks", "e" + Repeat("\u0301\u0327\u0345\u0334", kBytes)},
      {"Hangul jamo", Repeat("\u1100\u1161\u11A8", kBytes)},
      {"Chinese", Repeat("中文", kBytes)},
      {"digits", Repeat("7", kBytes)},
      {"fragments of a token", Repeat("<|im_start", kBytes)},
      {"tokens", Repeat("<|im_start|>", kBytes)},
      {"NUL", std::string(kBytes, '\0')},
      {"bad bytes", std::string(kBytes, '\xFF')},
  };
  for (const char* name : kSmall) {
    const auto tokenizer = LoadSmallTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    for (const auto& [what, text] : texts) {
      const auto begin = std::chrono::steady_clock::now();
      const std::vector<int32_t> ids = tokenizer->Encode(text, false);
      const auto elapsed = std::chrono::steady_clock::now() - begin;
      EXPECT_LT(elapsed, std::chrono::seconds(60)) << name << ": " << what;  // for sanitizers on a busy machine
    }
  }
}

}  // namespace
}  // namespace cairn
