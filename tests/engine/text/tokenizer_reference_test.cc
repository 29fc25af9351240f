// Agreement with Hugging Face `tokenizers`: the files written by tools/tokenizer_reference.py.
#include <fstream>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

using nlohmann::json;

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// All pieces, one after another; each must be whole characters.
std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special_tokens) {
  IncrementalDetokenizer detokenizer(tokenizer, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) {
    const std::string piece = detokenizer.Add(id);
    EXPECT_TRUE(IsValidUtf8(piece)) << "id " << id;
    text += piece;
  }
  return text + detokenizer.Finish();
}

void CheckCase(const Tokenizer& tokenizer, const json& expected) {
  const auto ids = expected["ids"].get<std::vector<int32_t>>();
  if (expected.contains("text") || expected.contains("hex")) {
    const std::string text = expected.contains("text") ? expected["text"].get<std::string>() : FromHex(expected["hex"]);
    EXPECT_EQ(tokenizer.Encode(text, /*add_special_tokens=*/false), ids);
    EXPECT_EQ(tokenizer.Encode(text, /*add_special_tokens=*/true), expected.value("special", ids));
  }
  const std::string decoded = expected.contains("decoded") ? expected["decoded"] : expected["text"];
  const std::string skipped = expected.value("skipped", decoded);
  EXPECT_EQ(tokenizer.Decode(ids, /*skip_special_tokens=*/false), decoded);
  EXPECT_EQ(tokenizer.Decode(ids, /*skip_special_tokens=*/true), skipped);
  EXPECT_EQ(Stream(tokenizer, ids, /*skip_special_tokens=*/false), decoded);
  EXPECT_EQ(Stream(tokenizer, ids, /*skip_special_tokens=*/true), skipped);
}

// Runs the cases of the tokenizers that are there; those of ../shared are left out, aloud, where it is absent.
void CheckFile(const std::string& path) {
  std::ifstream stream(path);
  ASSERT_TRUE(stream) << path;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string name, line;
  int checked = 0, line_number = 0, failed = 0;
  auto tell = [&] {
    if (tokenizer != nullptr) std::cout << name << ": " << checked << " cases\n";
  };
  while (std::getline(stream, line)) {
    ++line_number;
    const json expected = json::parse(line);
    if (expected.contains("tokenizer")) {
      tell();
      checked = 0;
      name = expected["tokenizer"];
      const std::string directory = ResolveDirectory(name);
      tokenizer = nullptr;
      if (!std::filesystem::exists(directory)) {
        std::cout << "SKIPPED: " << name << " is not there\n";
        continue;
      }
      tokenizer = LoadTokenizer(directory);
      ASSERT_NE(tokenizer, nullptr) << directory;
      continue;
    }
    if (tokenizer == nullptr) continue;
    CheckCase(*tokenizer, expected);
    ++checked;
    if (testing::Test::HasFailure()) {
      std::cout << path << ":" << line_number << ": " << name << ": " << line.substr(0, 2000) << "\n";
      if (++failed == 10) break;
    }
  }
  tell();
}

TEST(TokenizerReference, CommittedCases) { CheckFile(TextDataDir() + "/cases.jsonl"); }

TEST(TokenizerReference, GeneratedCases) {
  const char* path = std::getenv("CAIRN_TOKENIZER_CASES");
  if (path == nullptr) {
    GTEST_SKIP() << "CAIRN_TOKENIZER_CASES is not set: write the file with tools/tokenizer_reference.py cases";
  }
  CheckFile(path);
}

// The text around every code point of a block, as sweep_text of the tool writes it.
std::string SweepText(char32_t first) {
  std::string text;
  for (char32_t code_point = first; code_point < first + 1024; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string c;
    AppendUtf8(code_point, &c);
    text += "a" + c + "1" + c + " " + c + "\u0345\u0301\u0327" + c + "\n";
  }
  return text;
}

uint64_t Fnv1a(const std::vector<int32_t>& ids) {
  uint64_t value = 0xCBF29CE484222325;
  for (int32_t id : ids) value = (value ^ static_cast<uint32_t>(id)) * 0x100000001B3;
  return value;
}

// Letters, digits, spaces, punctuation and combining marks are those of Hugging Face, for every code point (but for the
// insides of the large uniform blocks).
TEST(TokenizerReference, EveryCodePoint) {
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x0000, 0x3800},   {0x9C00, 0xB000},   {0xD400, 0x17400},   {0x18400, 0x20400},
      {0x2A400, 0x32400}, {0xE0000, 0xE0400}, {0x10FC00, 0x110000}};
  const json sweep = json::parse(ReadFile(TextDataDir() + "/sweep.json"));
  for (const auto& [name, hashes] : sweep.items()) {
    const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(ResolveDirectory(name));
    ASSERT_NE(tokenizer, nullptr);
    size_t block = 0;
    for (const auto& [begin, end] : kRanges) {
      for (char32_t first = begin; first < end; first += 1024, ++block) {
        const uint64_t expected = std::stoull(hashes.at(block).get<std::string>(), nullptr, 16);
        EXPECT_EQ(Fnv1a(tokenizer->Encode(SweepText(first), /*add_special_tokens=*/false)), expected)
            << name << ": the 1,024 code points from " << std::hex << static_cast<uint32_t>(first);
      }
    }
    EXPECT_EQ(block, hashes.size());
  }
}

// Vectors of the Hugging Face tokenizers that were not made by our own tool.
TEST(TokenizerReference, SharedVectors) {
  const std::string path = SharedDir() + "/golden/tokenizers.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const json golden = json::parse(ReadFile(path));
  for (const auto& [name, cases] : golden["tokenizers"].items()) {
    SCOPED_TRACE(name);
    const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(SharedDir() + "/" + name);
    ASSERT_NE(tokenizer, nullptr);
    for (const json& expected : cases) {
      const auto ids = expected["ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer->Encode(expected["text"].get<std::string>(), /*add_special_tokens=*/false), ids);
      EXPECT_EQ(tokenizer->Decode(ids, /*skip_special_tokens=*/false), expected["decoded"].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace cairn
