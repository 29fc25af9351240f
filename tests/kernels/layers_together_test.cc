// The ops of compression on several layers at once.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"
#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {
namespace {

class LayersTogetherTest : public OpTest {};
CAIRN_OP_TEST_SUITE(LayersTogetherTest);

// Layers of several lengths at once, in matrices that are wider than any of them needs: each as if it were alone, bit
// for bit, on every path through the ops.
TEST_P(LayersTogetherTest, AreAsAlone) {
  auto c = context(2);
  struct Case {
    int group, d;
    DType dtype;
  };
  int turn = 0;
  for (const auto& [group, d, dtype] : {Case{4, 64, DType::kBFloat16},
                                        {3, 128, DType::kFloat16},
                                        {7, 64, DType::kFloat8E4M3},
                                        {2, 34, DType::kBFloat16},
                                        {2, 16, DType::kFloat32},
                                        {20, 64, DType::kBFloat16}}) {
    if (Skips(turn++, 3)) continue;
    SCOPED_TRACE(testing::Message() << group << " heads of " << d << ", " << DTypeName(dtype));
    Random random(21);
    constexpr int kHeads = 2, kWindow = 5;
    const std::vector<int32_t> lengths = {70, 6, 129, 64};
    const int layers = static_cast<int>(lengths.size()), columns = 140;
    Cache cache(random, {kHeads, d, 16, dtype, /*num_scores=*/2}, lengths, c.get());
    std::vector<KvView> views;
    std::vector<int32_t> candidates, keep;
    std::vector<Selection> selections;
    std::vector<int32_t> numbers;
    for (int l = 0; l < layers; ++l) {
      const int32_t n = lengths[l];
      views.push_back(cache.View(l, n));
      candidates.push_back(n - kWindow);
      keep.push_back(kWindow + (n - kWindow + 1) / 2);
      selections.push_back({.candidates = n - kWindow - l, .recent = kWindow + l, .keep = keep.back()});
      numbers.push_back(10 + l);
      std::vector<int32_t> positions(n);
      std::iota(positions.begin(), positions.end(), 0);
      Rows keys = Rows::Normal(random, n, kHeads * d);
      for (int64_t i = 1; i < n; ++i) {  // every other one like the one before
        for (int64_t j = 0; j < keys.columns() && i % 2 == 1; ++j) keys.at(i, j) += 3 * keys.at(i - 1, j);
      }
      Operands on(*c);
      const Tensor k = on(keys).SplitRows(kHeads, d);
      KvAppend(*c, k, k, on.Ints(positions), {{0, n, views.back()}});
      c->Synchronize();
    }
    Rows queries = Rows::Normal(random, layers * kWindow, kHeads * group * d);
    using Op = std::function<void(absl::Span<const KvView>, const Tensor&, absl::Span<const int32_t>, const Tensor&)>;
    const auto is_code = RedundancyVariant::kCode;
    const Op ops[] = {
        [&](auto kv, const Tensor& q, auto, const Tensor& out) { WindowImportance(*c, kv, q, kWindow, out); },
        [&](auto kv, const Tensor& q, auto, const Tensor& out) { WindowImportance(*c, kv, q, 0, out); },
        [&](auto kv, const Tensor& q, auto, const Tensor& out) {
          WindowAttention(*c, kv, q, WindowReduce::kMaxOfHeads, kWindow, out);
        },
        [&](auto kv, const Tensor& q, auto, const Tensor& out) {
          WindowAttention(*c, kv, q, WindowReduce::kMeanOfMaxima, kWindow, out);
        },
        [&](auto kv, const Tensor&, auto, const Tensor& out) {
          KeyRedundancy(*c, kv, kWindow, 0.5f, is_code, false, out);
        },
        [&](auto kv, const Tensor&, auto, const Tensor& out) {
          KeyRedundancy(*c, kv, kWindow, 0.5f, RedundancyVariant::kPaper, false, out);
        },
        [&](auto kv, const Tensor&, auto, const Tensor& out) { KeyDifference(*c, kv, kWindow, out); },
        [&](auto kv, const Tensor&, auto, const Tensor& out) { SlotRecency(*c, kv, out); },
        [&](auto kv, const Tensor&, auto layer, const Tensor& out) { RandomScores(*c, kv, kWindow, layer, 3, out); },
        // What they remember afterwards is the same too, and so is what that gives.
        [&](auto kv, const Tensor&, auto, const Tensor& out) {
          KeyRedundancy(*c, kv, kWindow, 0.5f, is_code, true, out);
        },
    };
    for (const Op& op : ops) {
      Rows together(layers * kHeads, columns, 3);
      Operands on(*c);
      const Tensor q = on.F32(queries).SplitRows(kHeads * group, d);
      op(views, q, numbers, on.F32(together));
      on.Fetch();
      EXPECT_TRUE(together.GapsIntact());
      for (int l = 0; l < layers; ++l) {
        Rows alone(kHeads, lengths[l]);
        Operands single(*c);
        op({views[l]}, q.Rows(l * kWindow, (l + 1) * kWindow), {numbers[l]}, single.F32(alone));
        single.Fetch();
        for (int h = 0; h < kHeads; ++h) {
          for (int32_t i = 0; i < candidates[l]; ++i) {
            ASSERT_EQ(together.at(l * kHeads + h, i), alone.at(h, i))
                << "op " << &op - ops << ", layer " << l << ", head " << h << ", slot " << i;
          }
        }
      }
    }
    // Running means, of counts of their own; from zero, so the first is a part of the numbers.
    {
      Rows x = Rows::Normal(random, layers * kHeads, columns), means(layers * kHeads, columns, 3);
      std::vector<int32_t> windows;
      for (int l = 0; l < layers; ++l) windows.push_back(1 + l);
      Operands on(*c);
      AverageRunningScores(*c, views, kWindow, 1, windows, on.F32(x), on.F32(means));
      on.Fetch();
      EXPECT_TRUE(means.GapsIntact());
      for (int row = 0; row < layers * kHeads; ++row) {
        const int32_t n = lengths[row / kHeads];
        for (int32_t i = 0; i < n - kWindow; ++i) {
          const int count = std::min(windows[row / kHeads], (n - 1 - i) / kWindow + 1);
          ASSERT_EQ(means.at(row, i), x.at(row, i) / static_cast<float>(count)) << "row " << row << ", slot " << i;
        }
      }
    }
    // Rows of numbers, and from scores to smaller caches.
    Rows x = Rows::Normal(random, layers * kHeads, columns), pooled(layers * kHeads, columns), divided = x;
    std::vector<int32_t> kept(layers * kHeads * 80, -1);
    {
      Operands on(*c);
      const Tensor sets = on.Ints(kept).Reshape({layers * kHeads, 80});
      PoolSlots(*c, on.F32(x), candidates, Pooling::kMax, 7, on.F32(pooled));
      DivideByRowMax(*c, on.F32(divided), candidates);
      SelectTopK(*c, on.F32(x), selections, 1, sets);
      KvCompact(*c, views, sets, keep);
      on.Fetch();
    }
    for (int l = 0; l < layers; ++l) {
      const KvView kv = cache.HostView(l, keep[l]);
      for (int h = 0; h < kHeads; ++h) {
        const int row = l * kHeads + h;
        float most = 0;
        for (int32_t i = 0; i < candidates[l]; ++i) most = std::max(most, x.at(row, i));
        for (int32_t i = 0; i < candidates[l]; ++i) {
          float near = -INFINITY;
          for (int32_t j = std::max(0, i - 3); j <= std::min(candidates[l] - 1, i + 3); ++j) {
            near = std::max(near, x.at(row, j));
          }
          ASSERT_EQ(pooled.at(row, i), near);
          ASSERT_EQ(divided.at(row, i), most > 0 ? x.at(row, i) / most : x.at(row, i));
        }
        const int32_t* own = kept.data() + row * 80;
        for (int32_t j = 0; j < keep[l]; ++j) {
          ASSERT_TRUE(j == 0 ? own[0] == 0 : own[j] > own[j - 1]) << "layer " << l << ", slot " << j;
          ASSERT_EQ(*kv.position(h, j), own[j]);  // the positions were the slots
        }
        const int32_t recent = selections[l].recent;
        ASSERT_EQ(own[keep[l] - 1], lengths[l] - 1);
        ASSERT_EQ(own[keep[l] - recent], lengths[l] - recent);
        ASSERT_EQ(own[keep[l]], -1);
      }
    }
  }
}

}  // namespace
}  // namespace cairn
