#include "kernels/ops/rope_append.h"

#include <cmath>

#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/kv_select.h"
#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {
namespace {

class RopeAppendTest : public OpTest {};
CAIRN_OP_TEST_SUITE(RopeAppendTest);

// q, the planes of the cache and the rings: the same bits as from the ops one after the other, for prompts longer and
// shorter than the window and for single tokens, in steps of several sequences.
TEST_P(RopeAppendTest, EqualsTheOpsOneAfterTheOther) {
  struct Case {
    int heads, kv_heads, d, block_size;
    DType activation, cache;
    int num_scores;
    int window;
  };
  const Case cases[] = {{4, 2, 64, 16, DType::kBFloat16, DType::kBFloat16, 1, 5},
                        {3, 3, 6, 7, DType::kFloat32, DType::kBFloat16, 0, 3},
                        {8, 1, 128, 16, DType::kFloat16, DType::kFloat16, 0, 0},
                        {6, 2, 80, 5, DType::kFloat32, DType::kFloat32, 2, 8},
                        {4, 2, 64, 16, DType::kBFloat16, DType::kFloat8E4M3, 1, 5},
                        {3, 1, 34, 3, DType::kFloat32, DType::kFloat8E4M3, 0, 2}};
  for (const auto& [heads, kv_heads, d, block_size, activation, dtype, num_scores, window] : cases) {
    SCOPED_TRACE(testing::Message() << heads << " heads over " << kv_heads << " of " << d << ", window " << window);
    Random random(1);
    auto c = context(3, activation);
    const std::vector<int32_t> before = {0, 9, 30, 2}, rows = {13, 1, 1, 4};
    const KvBlockLayout layout = {kv_heads, d, block_size, dtype, num_scores};
    Random blocks(2), same_blocks(2);
    Cache fused(blocks, layout, {13, 10, 31, 6}, c.get()), apart(same_blocks, layout, {13, 10, 31, 6}, c.get());
    std::vector<int32_t> positions;
    std::vector<SequenceRows> fused_rows, apart_rows;
    for (int i = 0; i < 4; ++i) {
      const int32_t first = static_cast<int32_t>(positions.size());
      fused_rows.push_back({first, rows[i], fused.View(i, before[i] + rows[i])});
      apart_rows.push_back({first, rows[i], apart.View(i, before[i] + rows[i])});
      for (int32_t j = 0; j < rows[i]; ++j) positions.push_back(100 * i + before[i] + j);  // as after an eviction
    }
    const int64_t T = static_cast<int64_t>(positions.size());
    Rows q = Rows::Normal(random, T, heads * d, 3, activation),
         k = Rows::Normal(random, T, kv_heads * d, 1, activation),
         v = Rows::Normal(random, T, kv_heads * d, 2, activation);
    Rows rotated = q, k_apart = k;
    std::vector<float> inv_freq(d / 2);
    for (int i = 0; i < d / 2; ++i) inv_freq[i] = std::pow(10000.0f, -2.0f * static_cast<float>(i) / d);
    std::vector<std::vector<float>> fused_rings(4, std::vector<float>(window * heads * d, -1)),
        apart_rings(fused_rings);
    Operands on(*c);
    const Tensor p = on.Ints(positions), f = on.F32(inv_freq);
    std::vector<float*> fused_pointers, apart_pointers;
    for (int i = 0; i < 4; ++i) {
      fused_pointers.push_back(on.F32(fused_rings[i]).data<float>());
      apart_pointers.push_back(on.F32(apart_rings[i]).data<float>());
    }
    const Tensor apart_q = on(rotated).SplitRows(heads, d), apart_k = on(k_apart).SplitRows(kv_heads, d);
    Rope(*c, apart_q, p, f, 1.25f);
    Rope(*c, apart_k, p, f, 1.25f);
    KvAppend(*c, apart_k, on(v).SplitRows(kv_heads, d), p, apart_rows);
    if (window > 0) RecordQueries(*c, apart_q, p, apart_rows, apart_pointers, window);
    RopeAppend(*c, on(q).SplitRows(heads, d), on(k).SplitRows(kv_heads, d), on(v).SplitRows(kv_heads, d), p, f,
               fused_rows, {fused_pointers, window}, 1.25f);
    on.Fetch();
    EXPECT_TRUE(SameBits(q, rotated));
    EXPECT_TRUE(q.GapsIntact());
    EXPECT_EQ(fused_rings, apart_rings);
    // Whole pools: nothing else was written either.
    const KvView a = fused.HostView(0, 13), b = apart.HostView(0, 13);
    EXPECT_EQ(std::memcmp(a.pool, b.pool, fused.size_bytes()), 0);
  }
}

}  // namespace
}  // namespace cairn
