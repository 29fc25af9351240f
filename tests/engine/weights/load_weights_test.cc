#include <algorithm>
#include <cstring>

#include "engine/config/model_config_reader.h"
#include "engine/weights/weight_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {
namespace {

// A matrix whose elements tell their place: row * columns + column, as float32. Reads fail past `fail_from_row`.
class CountingSource : public WeightSource {
 public:
  explicit CountingSource(int64_t fail_from_row = INT64_MAX) : fail_from_row_(fail_from_row) {}

  absl::StatusOr<DType> TypeOf(const std::string&) const override { return DType::kFloat32; }
  absl::StatusOr<std::vector<int64_t>> ShapeOf(const std::string& name) const override {
    return absl::NotFoundError(name);
  }
  absl::Status Read(const std::string&, const std::vector<int64_t>& shape, Range rows, Range columns,
                    void* out) override {
    if (rows.end > fail_from_row_) return absl::DataLossError("the disk");
    float* to = static_cast<float*>(out);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      for (int64_t c = columns.begin; c < columns.end; ++c) *to++ = static_cast<float>(r * shape.back() + c);
    }
    largest_read_ = std::max(largest_read_, rows.size() * columns.size() * 4);
    return absl::OkStatus();
  }
  int64_t bytes_read() const override { return 0; }
  int64_t largest_read() const { return largest_read_; }

 private:
  int64_t fail_from_row_;
  int64_t largest_read_ = 0;
};

TEST(LoadPackedTest, PutsEveryElementInItsPlace) {
  constexpr int64_t kRows = 100, kColumns = 96;
  const Range rows = {13, 90}, columns = {32, 80};
  CountingSource source;
  absl::StatusOr<PackedMatrix> loaded = PackedMatrix::Create({}, DType::kFloat32, 80, columns.size());
  absl::StatusOr<PackedMatrix> expected = PackedMatrix::Create({}, DType::kFloat32, 80, columns.size());
  ASSERT_TRUE(loaded.ok() && expected.ok());
  ASSERT_TRUE(LoadPacked(source, "w", {kRows, kColumns}, rows, columns, *loaded, 2).ok());
  std::vector<float> all;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    for (int64_t c = columns.begin; c < columns.end; ++c) all.push_back(static_cast<float>(r * kColumns + c));
  }
  expected->PackRows(2, rows.size(), all.data(), DType::kFloat32);
  ASSERT_EQ(loaded->size_bytes(), expected->size_bytes());
  EXPECT_EQ(std::memcmp(loaded->data(), expected->data(), loaded->size_bytes()), 0);
}

TEST(LoadPackedTest, LargeMatricesComeInPieces) {
  constexpr int64_t kRows = 3000, kColumns = 1024;  // 12 MB
  CountingSource source;
  absl::StatusOr<PackedMatrix> matrix = PackedMatrix::Create({}, DType::kFloat32, kRows, kColumns);
  ASSERT_TRUE(matrix.ok());
  ASSERT_TRUE(LoadPacked(source, "w", {kRows, kColumns}, {0, kRows}, {0, kColumns}, *matrix, 0).ok());
  EXPECT_LE(source.largest_read(), 5 << 20);
  std::vector<float> all(kRows * kColumns);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
  absl::StatusOr<PackedMatrix> expected = PackedMatrix::Create({}, DType::kFloat32, kRows, kColumns);
  ASSERT_TRUE(expected.ok());
  expected->PackRows(0, kRows, all.data(), DType::kFloat32);
  EXPECT_EQ(std::memcmp(matrix->data(), expected->data(), matrix->size_bytes()), 0);
}

TEST(LoadPackedTest, AnErrorComesBackAndNothingLoadsNothing) {
  CountingSource source(/*fail_from_row=*/2000);
  absl::StatusOr<PackedMatrix> matrix = PackedMatrix::Create({}, DType::kFloat32, 3000, 1024);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(LoadPacked(source, "w", {3000, 1024}, {0, 3000}, {0, 1024}, *matrix, 0).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(LoadPacked(source, "w", {3000, 1024}, {5, 5}, {0, 1024}, *matrix, 0).ok());
}

TEST(LoadVectorTest, GivesFloat32OfEveryStoredType) {
  for (const char* family : {"llama2", "llama3", "mistral"}) {  // f32, bf16, f16
    const std::string directory = CheckpointDir(family);
    const absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
    ASSERT_TRUE(config.ok()) << config.status();
    const absl::StatusOr<std::unique_ptr<WeightSource>> source = OpenSafetensors(directory, *config);
    ASSERT_TRUE(source.ok()) << source.status();
    const absl::StatusOr<std::vector<float>> whole = LoadVector(**source, "model.norm.weight", 64, {0, 64});
    ASSERT_TRUE(whole.ok()) << whole.status();
    double sum = 0;
    for (float w : *whole) {
      EXPECT_GE(w, 0.5f);  // norms are drawn from [0.5, 1.5)
      EXPECT_LE(w, 1.5f);
      sum += w;
    }
    EXPECT_NEAR(sum / 64, 1.0, 0.2);
    const absl::StatusOr<std::vector<float>> slice = LoadVector(**source, "model.norm.weight", 64, {10, 20});
    ASSERT_TRUE(slice.ok()) << slice.status();
    EXPECT_EQ(*slice, std::vector<float>(whole->begin() + 10, whole->begin() + 20));
  }
}

TEST(PackedTypeForTest, Float32ComputeKeepsTheStoredTypeOthersConvert) {
  for (DType stored : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const Device gpu = {DeviceKind::kCuda, 0};
    EXPECT_EQ(PackedTypeFor(stored, DType::kFloat32, Device()), stored);
    EXPECT_EQ(PackedTypeFor(stored, DType::kFloat32, gpu), DType::kFloat32);  // what its matmul takes
    for (const Device device : {Device(), gpu}) {
      EXPECT_EQ(PackedTypeFor(stored, DType::kBFloat16, device), DType::kBFloat16);
      EXPECT_EQ(PackedTypeFor(stored, DType::kFloat16, device), DType::kFloat16);
    }
  }
}

}  // namespace
}  // namespace cairn
