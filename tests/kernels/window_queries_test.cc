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
      std::vector<const float*> pointers;
      for (std::vector<float>& ring : rings) pointers.push_back(on.F32(ring).data<float>());
      WindowQueries(*c, pointers, oldest, on.F32(out).Reshape({window, static_cast<int64_t>(count) * heads, d}));
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

}  // namespace
}  // namespace cairn
