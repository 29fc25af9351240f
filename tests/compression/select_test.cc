// The golden files of selection and of fixed-point sums: bit-exact.
#include "tests/compression/golden.h"
#include "tests/compression/layer.h"

namespace cairn {
namespace {

class GoldenSelectTest : public OpTest {};
CAIRN_OP_TEST_SUITE(GoldenSelectTest);

TEST_P(GoldenSelectTest, Ties) {
  auto c = context();
  const Json golden = ReadGolden("select_ties");
  ASSERT_EQ(golden["expected"]["cases"].size(), 11);
  for (const Json& golden_case : golden["expected"]["cases"]) {
    SCOPED_TRACE(golden_case["text"].get<std::string>());
    const GoldenArray<float> scores = Floats(golden_case["scores"]);
    const int window = golden_case["window"];
    const int64_t keep = golden_case["keep"];
    Sets kept;
    if (golden_case["scope"] == "head") {
      kept = Select(*c, scores.values, scores.dim(0), window, keep);
    } else {
      const auto set = Select(*c, SumOfRows(*c, scores.values, scores.dim(0)), 1, window, keep)[0];
      kept = Sets(scores.dim(0), set);
    }
    EXPECT_EQ(kept, golden_case["kept"].get<Sets>());
    EXPECT_EQ(FingerprintsOf(*c, kept), Fingerprints(golden_case["fingerprints"]));
  }
}

TEST_P(GoldenSelectTest, FixedPoint) {
  auto c = context();
  const Json golden = ReadGolden("fixed_point");
  const Json &expected = golden["expected"], &params = golden["params"];
  const GoldenArray<float> scores = Floats(golden["inputs"]["scores"]);
  const auto fixed = ReadArray<int64_t>(expected["fixed_by_head"]);
  const auto layer_sums = ReadArray<int64_t>(expected["sum_layer"]);
  const int window = params["window"];
  const int64_t keep = params["keep"], L = scores.dim(0), H = scores.dim(1), m = scores.dim(2);
  for (int64_t row = 0; row < L * H; ++row) {
    const std::vector<float> one(scores.values.begin() + row * m, scores.values.begin() + (row + 1) * m);
    EXPECT_EQ(SumOfRows(*c, one, 1),
              std::vector<int64_t>(fixed.values.begin() + row * m, fixed.values.begin() + (row + 1) * m));
  }
  for (int64_t l = 0; l < L; ++l) {
    const std::vector<int64_t> sums = SumOfRows(*c, scores[l].values, H);
    EXPECT_EQ(sums, layer_sums[l].values);
    EXPECT_EQ(Select(*c, sums, 1, window, keep)[0], expected["kept_layer"][l].get<std::vector<int32_t>>());
  }
  const std::vector<int64_t> sums = SumOfRows(*c, scores.values, L * H);
  EXPECT_EQ(sums, ReadArray<int64_t>(expected["sum_sequence"]).values);
  EXPECT_EQ(Select(*c, sums, 1, window, keep)[0], expected["kept_sequence"].get<std::vector<int32_t>>());
}

}  // namespace
}  // namespace cairn
