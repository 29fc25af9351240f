// The YAML shapes of configs/models and the reader for them.
#include <filesystem>
#include <map>

#include "engine/config/configs_dir.h"
#include "engine/config/model_config_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Parameter counts as published: the safetensors totals on the models' pages.
TEST(ModelShapesTest, HaveThePublishedNumberOfParameters) {
  std::map<std::string, int64_t> published = {
      {"llama-3.1-8b", 8'030'261'248}, {"llama-3.1-70b", 70'553'706'496}, {"qwen2.5-14b", 14'770'033'664},
      {"qwen2.5-32b", 32'763'876'352}, {"qwen3-8b", 8'190'735'360},       {"qwen3-14b", 14'768'307'200},
      {"qwen3-32b", 32'762'123'264},
  };
  // The two tiny ones are our own.
  published["tiny-llama"] = 2 * 512 * 64 + 64 + 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 160 + 2 * 64);
  published["tiny-qwen3"] = 512 * 64 + 64 + 6 * (2 * 128 * 64 + 2 * 32 * 64 + 3 * 64 * 160 + 2 * 64 + 2 * 16);
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(CAIRN_SOURCE_DIR) + "/configs/models")) {
    const std::string name = entry.path().stem().string();
    const absl::StatusOr<ModelConfig> config = ReadModelConfigYaml(name);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->name, name);
    ASSERT_TRUE(published.contains(name)) << name << " needs its published number here";
    EXPECT_EQ(NumParameters(*config), published[name]) << name;
    EXPECT_EQ(config->dtype, DType::kBFloat16) << name;
    ++num_files;
  }
  EXPECT_EQ(num_files, static_cast<int>(published.size()));
}

TEST(ModelShapesTest, ReadsAPath) {
  const absl::StatusOr<ModelConfig> config =
      ReadModelConfigYaml(std::string(CAIRN_SOURCE_DIR) + "/configs/models/llama-3.1-8b.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.scaling, RopeConfig::Scaling::kLlama3);
  EXPECT_EQ(config->rope.factor, 8);
  EXPECT_EQ(config->rms_norm_eps, 1e-5f);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(128001, 128008, 128009));
}

class ConfigsDirTest : public ::testing::Test {
 protected:
  ~ConfigsDirTest() override { unsetenv("CAIRN_CONFIGS_DIR"); }
};

TEST_F(ConfigsDirTest, TheVariableWins) {
  const TempModel folder;
  std::filesystem::create_directory(folder.File("models"));
  folder.Write("models/mine.yaml", ReadText(std::string(CAIRN_SOURCE_DIR) + "/configs/models/tiny-llama.yaml"));
  setenv("CAIRN_CONFIGS_DIR", folder.path().c_str(), 1);
  EXPECT_TRUE(ReadModelConfigYaml("mine").ok());
  const absl::Status status = ReadModelConfigYaml("llama-3.1-8b").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("there: mine"));
}

// What is said of tiny-llama's shape without the line of `remove_line` and with `add` as line 17.
std::string FaultOf(const std::string& remove_line, const std::string& add) {
  const TempModel folder;
  std::string text = ReadText(std::string(CAIRN_SOURCE_DIR) + "/configs/models/tiny-llama.yaml");
  if (!remove_line.empty()) {
    const size_t begin = text.find(remove_line);
    text.replace(begin, text.find('\n', begin) - begin, "");
  }
  folder.Write("x.yaml", text + add);
  return std::string(ReadModelConfigYaml(folder.File("x.yaml")).status().message());
}

TEST(ModelShapesTest, FaultsNameFileLineAndKey) {
  EXPECT_EQ(FaultOf("", ""), "");
  EXPECT_THAT(FaultOf("", "hiden_size: 3\n"),
              AllOf(HasSubstr("x.yaml:17: unknown key hiden_size"), HasSubstr("hidden_size")));
  EXPECT_THAT(FaultOf("hidden_size", ""), HasSubstr("hidden_size is absent"));
  EXPECT_THAT(FaultOf("vocab_size", "vocab_size: many\n"),
              HasSubstr("x.yaml:17: vocab_size is \"many\"; supported: an integer"));
  EXPECT_THAT(FaultOf("", "dtype: float32\n"), HasSubstr("key dtype is given twice (first on line 14)"));
  EXPECT_THAT(FaultOf("rope_parameters", "rope_parameters: {rope_type: yarn}\n"),
              HasSubstr("x.yaml:17: rope_parameters.rope_type is \"yarn\""));
  EXPECT_THAT(FaultOf("rope_parameters", "rope_parameters: {thetta: 1}\n"),
              HasSubstr("unknown key rope_parameters.thetta"));
  EXPECT_THAT(FaultOf("vocab_size", "vocab_size: [[1]]\n"), HasSubstr("x.yaml:17: vocab_size must be"));
  EXPECT_THAT(FaultOf("vocab_size", "vocab_size: {a: 1}\n"), HasSubstr("x.yaml:17: vocab_size must be"));
  EXPECT_THAT(FaultOf("", "dtype: [\n"), HasSubstr("not valid YAML"));
}

TEST(ModelShapesTest, FilesThatAreNoShape) {
  const TempModel folder;
  EXPECT_EQ(ReadModelConfigYaml(folder.File("none.yaml")).status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"", "- 1\n", "just text\n", "a: 1\n---\nb: 2\n"}) {
    folder.Write("x.yaml", text);
    EXPECT_EQ(ReadModelConfigYaml(folder.File("x.yaml")).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace cairn
