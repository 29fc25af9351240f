// Checkpoints that others wrote, where they are at hand: ../shared/models (CAIRN_SHARED_DIR) and CAIRN_REAL_MODELS_DIR.
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "engine/config/model_config_reader.h"
#include "engine/weights/weight_source.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

// Every model folder opens, with exactly the tensors its config asks for, and its final norm is a plausible one.
void CheckModels(const std::string& folder) {
  int num_models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    ++num_models;
    const std::string directory = entry.path().string();
    const absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_FALSE(config->eos_token_ids.empty()) << directory;
    const absl::StatusOr<std::unique_ptr<WeightSource>> source = OpenSafetensors(directory, *config);
    ASSERT_TRUE(source.ok()) << source.status();
    const int64_t hidden = config->hidden_size;
    const absl::StatusOr<std::vector<float>> norm = LoadVector(**source, "model.norm.weight", hidden, {0, hidden});
    ASSERT_TRUE(norm.ok()) << norm.status();
    for (float w : *norm) EXPECT_TRUE(std::isfinite(w) && std::abs(w) < 100) << directory;
  }
  EXPECT_GT(num_models, 0) << folder;
}

TEST(RealCheckpointsTest, SharedModels) {
  const char* chosen = std::getenv("CAIRN_SHARED_DIR");
  const std::string folder = (chosen ? chosen : std::string(CAIRN_SOURCE_DIR) + "/../shared") + "/models";
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << folder << " is not there; its models are not checked";
  CheckModels(folder);
}

TEST(RealCheckpointsTest, InstructModels) {
  const char* folder = std::getenv("CAIRN_REAL_MODELS_DIR");
  if (folder == nullptr) GTEST_SKIP() << "CAIRN_REAL_MODELS_DIR is not set; the real instruct models are not checked";
  CheckModels(folder);
}

}  // namespace
}  // namespace cairn
