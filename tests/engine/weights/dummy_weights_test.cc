#include <cmath>
#include <random>

#include "engine/config/model_config_reader.h"
#include "engine/weights/weight_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

ModelConfig TinyConfig(DType dtype) {
  ModelConfig config = *ReadModelConfigYaml(std::string(CAIRN_SOURCE_DIR) + "/configs/models/tiny-llama.yaml");
  config.dtype = dtype;
  config.qkv_bias = true;
  return config;
}

constexpr char kMatrix[] = "model.layers.2.mlp.down_proj.weight";
const std::vector<int64_t> kShape = {64, 160};

std::vector<uint16_t> ReadBits(WeightSource& source, const std::string& name, const std::vector<int64_t>& shape,
                               Range rows, Range columns) {
  std::vector<uint16_t> bits(rows.size() * columns.size());
  EXPECT_TRUE(source.Read(name, shape, rows, columns, bits.data()).ok());
  return bits;
}

TEST(DummyWeightsTest, EveryShardingSeesTheSameModel) {
  const ModelConfig config = TinyConfig(DType::kBFloat16);
  const std::unique_ptr<WeightSource> one = MakeDummyWeights(config, 5), other = MakeDummyWeights(config, 5);
  std::mt19937 random(3);
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    const int64_t rows = spec.shape.size() == 2 ? spec.shape[0] : 1, columns = spec.shape.back();
    const std::vector<uint16_t> whole = ReadBits(*one, spec.name, spec.shape, {0, rows}, {0, columns});
    for (int i = 0; i < 4; ++i) {
      const int64_t r = static_cast<int64_t>(random() % rows), c = static_cast<int64_t>(random() % columns);
      const std::vector<uint16_t> part = ReadBits(*other, spec.name, spec.shape, {r, rows}, {c, columns});
      size_t at = 0;
      for (int64_t row = r; row < rows; ++row) {
        for (int64_t column = c; column < columns; ++column)
          ASSERT_EQ(part[at++], whole[row * columns + column]) << spec.name << " " << row << " " << column;
      }
    }
  }
}

// Pins the values: a committed answer to a dummy model stays true.
TEST(DummyWeightsTest, ValuesStayWhatTheyAre) {
  std::vector<float> row(4);
  const std::unique_ptr<WeightSource> source = MakeDummyWeights(TinyConfig(DType::kFloat32), 0);
  ASSERT_TRUE(source->Read(kMatrix, kShape, {63, 64}, {156, 160}, row.data()).ok());
  using ::testing::FloatEq;
  EXPECT_THAT(row, ::testing::ElementsAre(FloatEq(0.17009483f), FloatEq(0.011232677f), FloatEq(0.11553611f),
                                          FloatEq(0.060442501f)));
}

TEST(DummyWeightsTest, SeedsAndTensorsDiffer) {
  const ModelConfig config = TinyConfig(DType::kBFloat16);
  const auto read = [&](uint64_t seed, const std::string& name) {
    return ReadBits(*MakeDummyWeights(config, seed), name, kShape, {0, 64}, {0, 160});
  };
  const std::string other_layer = "model.layers.1.mlp.down_proj.weight";
  for (const auto& different : {read(1, kMatrix), read(0, other_layer)}) {
    const std::vector<uint16_t> base = read(0, kMatrix);
    int equal = 0;
    for (size_t i = 0; i < base.size(); ++i) equal += base[i] == different[i];
    EXPECT_LT(equal, static_cast<int>(base.size()) / 50);
  }
}

TEST(DummyWeightsTest, AreNearlyNormalWithDeviationOneOverRootColumns) {
  ModelConfig config = TinyConfig(DType::kFloat32);
  config.hidden_size = 1024;
  config.intermediate_size = 256;
  const std::unique_ptr<WeightSource> source = MakeDummyWeights(config, 9);
  std::vector<float> w(256 * 1024);
  ASSERT_TRUE(source->Read("model.layers.0.mlp.up_proj.weight", {256, 1024}, {0, 256}, {0, 1024}, w.data()).ok());
  const double n = static_cast<double>(w.size());
  double sum = 0, squares = 0, fourth = 0, next_column = 0, next_row = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double x = w[i] * 32;  // sqrt(1024)
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    if (i + 1 < w.size()) next_column += x * w[i + 1] * 32;
    if (i + 1024 < w.size()) next_row += x * w[i + 1024] * 32;
  }
  // Five standard errors of each mean over n samples; the fourth moment of four uniform bytes is 3 - 1.2 / 4.
  const double error = 5 / std::sqrt(n);
  EXPECT_NEAR(sum / n, 0, error);
  EXPECT_NEAR(squares / n, 1, 1.5 * error);
  EXPECT_NEAR(fourth / n, 2.7, 8 * error);
  EXPECT_NEAR(next_column / n, 0, error);
  EXPECT_NEAR(next_row / n, 0, error);
}

TEST(DummyWeightsTest, NormsAreOneAndBiasesSmall) {
  const std::unique_ptr<WeightSource> source = MakeDummyWeights(TinyConfig(DType::kFloat16), 0);
  const absl::StatusOr<std::vector<float>> norm = LoadVector(*source, "model.norm.weight", 64, {3, 64});
  ASSERT_TRUE(norm.ok()) << norm.status();
  EXPECT_THAT(*norm, ::testing::Each(1.0f));
  const absl::StatusOr<std::vector<float>> bias =
      LoadVector(*source, "model.layers.0.self_attn.q_proj.bias", 64, {0, 64});
  ASSERT_TRUE(bias.ok()) << bias.status();
  double squares = 0;
  for (float b : *bias) squares += b * b;
  EXPECT_GT(squares, 64 * 0.01 * 0.01);
  EXPECT_LT(squares, 64 * 0.03 * 0.03);
}

TEST(DummyWeightsTest, UnknownTensorsAndShapesAreErrors) {
  const std::unique_ptr<WeightSource> source = MakeDummyWeights(TinyConfig(DType::kBFloat16), 0);
  EXPECT_EQ(source->TypeOf("nobody").status().code(), absl::StatusCode::kNotFound);
  uint16_t value;
  EXPECT_EQ(source->Read(kMatrix, {160, 64}, {0, 1}, {0, 1}, &value).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cairn
