#include "launcher/batch/line_reader.h"

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/exit_codes.h"
#include "tests/launcher/temp_path.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string File(const std::string& content) {
  const std::string path = TempPath("line_reader_test.jsonl");
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::vector<std::pair<int64_t, std::string>> Lines(const std::string& content, size_t max_line_bytes = 1000) {
  const std::string path = File(content);
  auto reader = LineReader::Open(path, max_line_bytes);
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::vector<std::pair<int64_t, std::string>> lines;
  while (true) {
    auto line = (*reader)->Next();
    EXPECT_TRUE(line.ok());
    if (!line->has_value()) break;
    lines.emplace_back((*line)->number, (*line)->too_long ? "TOO LONG" : (*line)->text);
  }
  EXPECT_EQ(CountLines(path), static_cast<int64_t>(lines.size()));
  return lines;
}

TEST(LineReaderTest, ToleratesMarkCrlfBlankLinesAndMissingEnd) {
  EXPECT_THAT(Lines("a\nb\n"), ElementsAre(Pair(1, "a"), Pair(2, "b")));
  EXPECT_THAT(Lines("\xef\xbb\xbf"
                    "a\r\n\r\n  \t\nb"),
              ElementsAre(Pair(1, "a"), Pair(4, "b")));
  EXPECT_THAT(Lines("\n\n"), ElementsAre());
}

TEST(LineReaderTest, SplitsAtNewlineAlone) {
  const std::string text =
      "a\xe2\x80\xa8"
      "b\x0b"
      "c\x85"
      "d\xc2\x85"
      "e";
  EXPECT_THAT(Lines(text + "\nf\n"), ElementsAre(Pair(1, text), Pair(2, "f")));
}

TEST(LineReaderTest, LongLinesAreCutAndTheNextOneIsWhole) {
  EXPECT_THAT(Lines(std::string(1000, 'x') + "\n" + std::string(1001, 'y') + "\nz\n"),
              ElementsAre(Pair(1, std::string(1000, 'x')), Pair(2, "TOO LONG"), Pair(3, "z")));
}

TEST(LineReaderTest, LinesAcrossBuffers) {
  // Lengths around the buffer size, so that ends and line breaks fall on every side of its edge.
  std::string content;
  std::vector<std::string> expected;
  for (int i = 0; i < 40; ++i) {
    expected.push_back(std::string(static_cast<size_t>(65536 - 20 + i), static_cast<char>('a' + i % 26)));
    content += expected.back() + (i % 2 ? "\r\n" : "\n");
  }
  const auto lines = Lines(content, 1 << 20);
  ASSERT_EQ(lines.size(), expected.size());
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i].second, expected[i]) << i;
}

TEST(LineReaderTest, ErrorsNameTheFile) {
  const auto error = [](const std::string& path) {
    const absl::Status status = LineReader::Open(path).status();
    EXPECT_EQ(ExitCodeOf(status), kExitBadInput);
    return std::string(status.message());
  };
  EXPECT_THAT(error("/no/such.jsonl"), HasSubstr("/no/such.jsonl: No such file"));
  EXPECT_THAT(error(::testing::TempDir()), HasSubstr("directory"));
  EXPECT_THAT(error(File("")), HasSubstr("it is empty"));
}

}  // namespace
}  // namespace cairn
