#include "engine/config/run_config_reader.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<RunConfigEntry>> Read(const std::string& text) {
  const TempModel folder;
  folder.Write("run.yaml", text);
  return ReadRunConfig(folder.File("run.yaml"));
}

TEST(RunConfigReaderTest, GivesEntriesInOrder) {
  const absl::StatusOr<std::vector<RunConfigEntry>> entries = Read(
      "# a run\n"
      "model: ../models/x y\n"
      "tensor-parallel-size: 2\n"
      "show_progress: True\n"
      "prefix: 'true'\n"
      "pp_layer_partition: [18, 21]\n"
      "kv_cache_compression_config:\n"
      "  budget: 1024\n"
      "  mix-lambda: 0.10\n"
      "empty: \"\"\n"
      "none: []\n");
  ASSERT_TRUE(entries.ok()) << entries.status();
  const std::vector<RunConfigEntry> expected = {
      {"model", "../models/x y", 2},
      {"tensor_parallel_size", "2", 3},
      {"show_progress", "true", 4},
      {"prefix", "true", 5},
      {"pp_layer_partition", "18,21", 6},
      {"kv_cache_compression_config.budget", "1024", 8},
      {"kv_cache_compression_config.mix_lambda", "0.10", 9},  // as written: nothing is rounded
      {"empty", "", 10},
      {"none", "", 11},
  };
  ASSERT_EQ(entries->size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((*entries)[i].key, expected[i].key);
    EXPECT_EQ((*entries)[i].value, expected[i].value);
    EXPECT_EQ((*entries)[i].line, expected[i].line);
  }
}

TEST(RunConfigReaderTest, AnEmptyFileHasNoEntries) {
  for (const char* text : {"", "# nothing\n", "---\n"}) {
    const absl::StatusOr<std::vector<RunConfigEntry>> entries = Read(text);
    ASSERT_TRUE(entries.ok()) << entries.status();
    EXPECT_TRUE(entries->empty());
  }
}

TEST(RunConfigReaderTest, FaultsNameFileAndLine) {
  const auto message = [](const std::string& text) { return std::string(Read(text).status().message()); };
  EXPECT_THAT(message("model: x\nmodel: y\n"), HasSubstr("run.yaml:2: key model is given twice (first on line 1)"));
  EXPECT_THAT(message("a-b: x\na_b: y\n"), HasSubstr("run.yaml:2: key a_b is given twice"));
  EXPECT_THAT(message("model: x\ndtype:\n"), HasSubstr("run.yaml:2: key dtype has no value"));
  EXPECT_THAT(message("a: {b: {c: 1}}\n"), HasSubstr("run.yaml:1: key a.b: maps nest one level deep"));
  EXPECT_THAT(message("a: [1, [2]]\n"), HasSubstr("run.yaml:1: key a"));
  EXPECT_THAT(message("a: ['1,2']\n"), HasSubstr("comma"));
  EXPECT_THAT(message("model: x\n? [a]\n: y\n"), HasSubstr("a key must be plain text"));
  EXPECT_THAT(message("model: x\nb: [1, 2\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(message("- model\n"), HasSubstr("must be a map"));
  EXPECT_THAT(message("a: 1\n---\nb: 2\n"), HasSubstr("a second document"));
  EXPECT_THAT(message("model: x\n\tb: y\n"), HasSubstr("run.yaml:2"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("run.yaml"));
  EXPECT_EQ(ReadRunConfig("/nonexistent.yaml").status().code(), absl::StatusCode::kNotFound);
}

TEST(RunConfigReaderTest, ReadsEveryFileOfConfigsRuns) {
  for (const auto& entry : std::filesystem::directory_iterator(std::string(CAIRN_SOURCE_DIR) + "/configs/runs")) {
    const absl::StatusOr<std::vector<RunConfigEntry>> entries = ReadRunConfig(entry.path().string());
    EXPECT_TRUE(entries.ok() && !entries->empty()) << entry.path() << ": " << entries.status();
  }
}

}  // namespace
}  // namespace cairn
