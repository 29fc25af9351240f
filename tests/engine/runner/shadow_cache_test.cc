// What leaving entries out costs, against the same attention by hand.
#include "engine/runner/shadow_cache.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/context.h"

namespace cairn {
namespace {

constexpr int kHeads = 2, kGroup = 2, kWindow = 2, kDim = 4, kLayers = 2;

// Any numbers that differ.
float KeyAt(int layer, int head, int64_t position, int i) {
  return std::sin(static_cast<float>(1 + layer * 7 + head * 3 + i) * static_cast<float>(position + 1));
}
float ValueAt(int layer, int head, int64_t position, int i) { return KeyAt(layer, head, position + 50, i) + 0.5f; }
float QueryAt(int layer, int head, int64_t position, int i) { return 2 * KeyAt(layer + 1, head, position + 90, i); }

struct Fixture {
  KvBlockLayout layout = {.kv_heads = kHeads, .head_dim = kDim, .block_size = 4, .dtype = DType::kFloat32};
  KvCache cache =
      *KvCache::Create({}, layout, {.window = kWindow, .heads = kHeads * kGroup, .head_dim = kDim}, kLayers, 64, 2);
  std::unique_ptr<Context> context = Context::Cpu(1, DType::kFloat32);
  ShadowCache shadow = ShadowCache(layout, kLayers, kHeads* kGroup, 2);

  void Append(int sequence, int tokens) {
    const int64_t before = cache.logical_length(sequence);
    cache.Append(sequence, tokens);
    for (int layer = 0; layer < kLayers; ++layer) {
      const KvView kv = cache.View(sequence, layer);
      for (int token = 0; token < tokens; ++token) {
        const int64_t position = before + token;
        const int32_t slot = kv.num_slots - tokens + token;
        for (int head = 0; head < kHeads; ++head) {
          *kv.position(head, slot) = static_cast<int32_t>(position);
          for (int i = 0; i < kDim; ++i) {
            reinterpret_cast<float*>(kv.k(head, slot))[i] = KeyAt(layer, head, position, i);
            reinterpret_cast<float*>(kv.v(head, slot))[i] = ValueAt(layer, head, position, i);
          }
        }
        for (int head = 0; head < kHeads * kGroup; ++head) {
          for (int i = 0; i < kDim; ++i) {
            cache.QueryRing(sequence, layer)[((position % kWindow) * kHeads * kGroup + head) * kDim + i] =
                QueryAt(layer, head, position, i);
          }
        }
      }
    }
  }
};

ShadowLoss ByHand(int layer, int head, int64_t length, const std::vector<int32_t>& kept) {
  double mass_lost = 0, error = 0;
  for (int64_t own = length - kWindow; own < length; ++own) {
    for (int g = 0; g < kGroup; ++g) {
      std::vector<double> weight(static_cast<size_t>(own) + 1);
      double sum = 0, kept_sum = 0;
      for (int64_t p = 0; p <= own; ++p) {
        double dot = 0;
        for (int i = 0; i < kDim; ++i) dot += QueryAt(layer, head * kGroup + g, own, i) * KeyAt(layer, head, p, i);
        sum += weight[static_cast<size_t>(p)] = std::exp(dot / 2);  // sqrt(4)
      }
      std::vector<double> o(kDim, 0), o_kept(kDim, 0);
      for (int64_t p = 0; p <= own; ++p) {
        const bool is_kept = std::find(kept.begin(), kept.end(), p) != kept.end();
        if (is_kept) kept_sum += weight[static_cast<size_t>(p)];
        for (int i = 0; i < kDim; ++i) {
          o[i] += weight[static_cast<size_t>(p)] / sum * ValueAt(layer, head, p, i);
          if (is_kept) o_kept[i] += weight[static_cast<size_t>(p)] * ValueAt(layer, head, p, i);
        }
      }
      mass_lost += 1 - kept_sum / sum;
      double difference = 0, norm = 0;
      for (int i = 0; i < kDim; ++i) {
        difference += std::pow(o[i] - o_kept[i] / kept_sum, 2);
        norm += o[i] * o[i];
      }
      error += std::sqrt(difference / norm);
    }
  }
  return {static_cast<float>(mass_lost / (kWindow * kGroup)), static_cast<float>(error / (kWindow * kGroup))};
}

TEST(ShadowCacheTest, LossesOverSeveralCompactions) {
  Fixture fixture;
  fixture.cache.Open(1);
  fixture.shadow.Open(1);
  fixture.Append(1, 9);
  std::vector<int32_t> positions(9);
  std::iota(positions.begin(), positions.end(), 0);
  for (int event = 0; event < 3; ++event) {
    const int64_t length = fixture.cache.logical_length(1);
    for (int layer = 0; layer < kLayers; ++layer) {
      fixture.shadow.Extend(fixture.cache, 1, layer);
      // Nothing left out: nothing lost.
      if (event == 0) {
        const ShadowLoss none = fixture.shadow.Measure(fixture.cache, 1, layer, 0, positions);
        EXPECT_NEAR(none.mass_lost, 0, 1e-6);
        EXPECT_NEAR(none.output_error, 0, 1e-6);
      }
    }
    // Slots 0, 2 and the last four, in both heads.
    const int32_t n = static_cast<int32_t>(positions.size());
    std::vector<int32_t> slots = {0, 2, n - 4, n - 3, n - 2, n - 1}, kept;
    for (const int32_t slot : slots) kept.push_back(positions[static_cast<size_t>(slot)]);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int head = 0; head < kHeads; ++head) {
        const ShadowLoss loss = fixture.shadow.Measure(fixture.cache, 1, layer, head, kept);
        const ShadowLoss expected = ByHand(layer, head, length, kept);
        EXPECT_NEAR(loss.mass_lost, expected.mass_lost, 1e-5) << event << layer << head;
        EXPECT_NEAR(loss.output_error, expected.output_error, 1e-5) << event << layer << head;
        EXPECT_GT(loss.mass_lost, 0.01);
      }
      fixture.cache.Compact(*fixture.context, {{1, layer}},
                            Tensor(slots.data(), DType::kInt32, {1, static_cast<int64_t>(slots.size())}),
                            {static_cast<int32_t>(slots.size())});
    }
    fixture.cache.FreeTails(1);
    positions = kept;
    fixture.Append(1, 5);
    for (int64_t p = length; p < length + 5; ++p) positions.push_back(static_cast<int32_t>(p));
  }
  // The next sequence in the place has nothing of this one.
  fixture.cache.Close(1);
  fixture.cache.Open(1);
  fixture.shadow.Open(1);
  fixture.Append(1, 6);
  fixture.shadow.Extend(fixture.cache, 1, 0);
  EXPECT_NEAR(fixture.shadow.Measure(fixture.cache, 1, 0, 1, {0, 4, 5}).mass_lost, ByHand(0, 1, 6, {0, 4, 5}).mass_lost,
              1e-5);
}

}  // namespace
}  // namespace cairn
