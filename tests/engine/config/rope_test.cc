#include <cmath>

#include "engine/model/model_config.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {
namespace {

RopeConfig FromCase(const nlohmann::json& item) {
  RopeConfig rope;
  rope.theta = item["rope_theta"];
  const std::string type = item["rope_type"];
  if (type != "default") rope.factor = item["factor"];
  if (type == "linear") rope.scaling = RopeConfig::Scaling::kLinear;
  if (type == "llama3") {
    rope.scaling = RopeConfig::Scaling::kLlama3;
    rope.low_freq_factor = item["low_freq_factor"];
    rope.high_freq_factor = item["high_freq_factor"];
    rope.original_max_position_embeddings = item["original_max_position_embeddings"];
  }
  return rope;
}

// Equal up to the last bit: libraries' powf differ by that, and the reference was made with one of them.
TEST(RopeTest, InverseFrequenciesAreThoseOfTransformers) {
  const nlohmann::json cases = nlohmann::json::parse(ReadText(CheckpointDir("rope.json")));
  ASSERT_FALSE(cases.empty());
  int num_different = 0, num_values = 0;
  for (const nlohmann::json& item : cases) {
    const std::vector<float> found = RopeInverseFrequencies(FromCase(item), item["head_dim"]);
    const std::vector<float> expected = item["inverse_frequencies"];
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      const float ulp = std::nextafter(expected[i], 2.0f) - expected[i];
      EXPECT_NEAR(found[i], expected[i], ulp) << item["rope_type"] << " head_dim " << item["head_dim"] << " at " << i;
      num_different += found[i] != expected[i];
      ++num_values;
    }
  }
  RecordProperty("different_values", num_different);
  EXPECT_LE(num_different, num_values / 20);
}

}  // namespace
}  // namespace cairn
