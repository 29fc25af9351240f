// Files damaged at random: each one opens and reads, or is refused with a message. The sanitizers watch for the rest.
#include <random>

#include "engine/config/model_config_reader.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/weight_source.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"
#include "tests/engine/weights/safetensors_file_builder.h"

namespace cairn {
namespace {

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }

  // A few changes of the kinds that break parsers: bits, cuts, repeats, and numbers at the borders of their types.
  std::string Mutate(std::string text) {
    static const char* const kPieces[] = {"0",
                                          "-1",
                                          "1e999",
                                          "9223372036854775807",
                                          "18446744073709551615",
                                          "4294967296",
                                          "[",
                                          "]",
                                          "{",
                                          "}",
                                          "null",
                                          "\"",
                                          "\\",
                                          ",",
                                          ":",
                                          "\"F32\"",
                                          "\"BF16\"",
                                          "[]"};
    for (size_t count = 1 + Below(4); count > 0; --count) {
      const size_t at = Below(text.size());
      switch (Below(6)) {
        case 0:
          if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << Below(8)));
          break;
        case 1:
          text.erase(at, 1 + Below(20));
          break;
        case 2:
          text.insert(at, kPieces[Below(std::size(kPieces))]);
          break;
        case 3:
          text.insert(at, text.substr(Below(text.size()), Below(200)));
          break;
        case 4:
          text.resize(at);
          break;
        default:
          ReplaceNumber(text, at, kPieces[Below(6)]);
      }
    }
    return text;
  }

 private:
  // The first number after `at`.
  static void ReplaceNumber(std::string& text, size_t at, const std::string& number) {
    const size_t begin = text.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    size_t end = text.find_first_not_of("0123456789", begin);
    if (end == std::string::npos) end = text.size();
    text.replace(begin, end - begin, number);
  }

  std::mt19937 random_;
};

TEST(SafetensorsFuzzTest, HeadersParseOrAreRefused) {
  const SafetensorsParts parts(ReadText(CheckpointDir("qwen3") + "/model.safetensors"));
  const std::string header = parts.header.dump();
  Mutator mutator(1);
  int parsed = 0, refused = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string text = mutator.Mutate(header);
    const int64_t size = kSafetensorsLengthBytes + static_cast<int64_t>(text.size() + parts.data.size());
    const auto entries = ParseSafetensorsHeader("x", text, size);
    if (!entries.ok()) {
      ++refused;
      ASSERT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument) << entries.status();
      continue;
    }
    ++parsed;
    for (const SafetensorsEntry& entry : *entries) {
      ASSERT_LE(0, entry.begin);
      ASSERT_LE(entry.begin, entry.end);
      ASSERT_LE(entry.end, size);
    }
  }
  EXPECT_GT(parsed, 0);  // a changed name, for one
  EXPECT_GT(refused, 500);
}

TEST(SafetensorsFuzzTest, FilesOpenOrAreRefused) {
  const TempModel model("qwen3");
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(model.path());
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string bytes = ReadText(model.File("model.safetensors"));
  const SafetensorsParts parts(bytes);
  const size_t header_end = bytes.size() - parts.data.size();
  Mutator mutator(2);
  int refused = 0;
  std::vector<float> out(301 * 64);
  for (int i = 0; i < 150; ++i) {
    model.Write("model.safetensors", mutator.Mutate(bytes.substr(0, header_end)) + parts.data);
    const auto source = OpenSafetensors(model.path(), *config);
    refused += !source.ok();
    if (!source.ok()) continue;
    for (const TensorSpec& spec : ExpectedTensors(*config)) {
      const int64_t rows = spec.shape.size() == 2 ? spec.shape[0] : 1;
      ASSERT_TRUE((*source)->Read(spec.name, spec.shape, {0, rows}, {0, spec.shape.back()}, out.data()).ok());
    }
  }
  EXPECT_GT(refused, 50);
}

TEST(SafetensorsFuzzTest, ConfigsAndIndexesAreReadOrRefused) {
  Mutator mutator(3);
  const std::string config_text = ReadText(CheckpointDir("llama3") + "/config.json");
  const TempModel model("llama3");
  const std::string index = ReadText(CheckpointDir("qwen2") + "/model.safetensors.index.json");
  const TempModel sharded("qwen2");
  const absl::StatusOr<ModelConfig> qwen2 = ReadModelConfig(sharded.path());
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    model.Write("config.json", mutator.Mutate(config_text));
    const absl::StatusOr<ModelConfig> config = ReadModelConfig(model.path());
    if (config.ok()) {
      EXPECT_GT(NumParameters(*config), 0);
    }
    refused += !config.ok();
    sharded.Write("model.safetensors.index.json", mutator.Mutate(index));
    refused += !OpenSafetensors(sharded.path(), *qwen2).ok();
  }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace cairn
