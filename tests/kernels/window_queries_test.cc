#include "kernels/ops/window_queries.h"

#include "tests/kernels/op_testing.h"

namespace cairn {
namespace {

class WindowQueriesTest : public OpTest {};
CAIRN_OP_TEST_SUITE(WindowQueriesTest);

TEST_P(WindowQueriesTest, OldestFirstAndRingsSideBySide) {
  Random random(1);
  auto c = context(2);
  const int window = 5, heads = 3, d = 100;
  for (const size_t count : {size_t{1}, size_t{3}}) {
    std::vector<std::vector<float>> rings(count);
    for (std::vector<float>& ring : rings) {
      for (int i = 0; i < window * heads * d; ++i) ring.push_back(random.Normal());
    }
    for (int oldest = 0; oldest < window; ++oldest) {
      std::vector<float> out(window * count * heads * d, -1);
      Operands on(*c);
      std::vector<WindowRing> given;
      for (std::vector<float>& ring : rings) given.push_back({on.F32(ring).data<float>(), oldest});
      WindowQueries(*c, given, static_cast<int>(count),
                    on.F32(out).Reshape({window, static_cast<int64_t>(count) * heads, d}));
      on.Fetch();
      size_t at = 0;
      for (int r = 0; r < window; ++r) {
        for (const std::vector<float>& ring : rings) {
          for (int i = 0; i < heads * d; ++i) {
            ASSERT_EQ(out[at++], ring[(oldest + r) % window * heads * d + i]) << "row " << r << ", oldest " << oldest;
          }
        }
      }
    }
  }
}

// Each layer with an oldest row of its own.
TEST_P(WindowQueriesTest, LayersOneAfterTheOther) {
  Random random(2);
  auto c = context(2);
  const int window = 4, heads = 2, d = 6, layers = 3, per_layer = 2;
  std::vector<std::vector<float>> rings(layers * per_layer);
  for (std::vector<float>& ring : rings) {
    for (int i = 0; i < window * heads * d; ++i) ring.push_back(random.Normal());
  }
  std::vector<float> out(layers * window * per_layer * heads * d, -1);
  Operands on(*c);
  std::vector<WindowRing> given;
  for (int i = 0; i < layers * per_layer; ++i) given.push_back({on.F32(rings[i]).data<float>(), i / per_layer + 1});
  WindowQueries(*c, given, per_layer, on.F32(out).Reshape({layers * window, per_layer * heads, d}));
  on.Fetch();
  size_t at = 0;
  for (int layer = 0; layer < layers; ++layer) {
    for (int r = 0; r < window; ++r) {
      for (int part = 0; part < per_layer; ++part) {
        for (int i = 0; i < heads * d; ++i) {
          ASSERT_EQ(out[at++], rings[layer * per_layer + part][(layer + 1 + r) % window * heads * d + i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace cairn
