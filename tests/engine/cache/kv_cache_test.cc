#include "engine/cache/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>

#include "engine/cache/cache_accountant.h"

namespace cairn {
namespace {

KvCache MakeCache(int layers, int64_t blocks, int sequences, int block_size) {
  const KvBlockLayout layout = {.kv_heads = 2, .head_dim = 8, .block_size = block_size, .dtype = DType::kFloat32};
  return *KvCache::Create({}, layout, {}, layers, blocks, sequences);
}

TEST(KvCacheTest, SlotsAreInTheirOwnBlocksAndComeBackOnClose) {
  KvCache cache = MakeCache(3, 30, 2, 4);
  cache.Open(0);
  cache.Open(1);
  cache.Append(0, 9);  // 3 blocks in each of 3 layers
  cache.Append(1, 4);
  EXPECT_EQ(cache.pool().num_used(), 9 + 3);
  std::set<const uint8_t*> places;
  for (int sequence = 0; sequence < 2; ++sequence) {
    for (int layer = 0; layer < 3; ++layer) {
      const KvView view = cache.View(sequence, layer);
      for (int slot = 0; slot < view.num_slots; ++slot) {
        for (int head = 0; head < 2; ++head) {
          EXPECT_TRUE(places.insert(view.k(head, slot)).second);
          EXPECT_TRUE(places.insert(view.v(head, slot)).second);
          EXPECT_TRUE(places.insert(reinterpret_cast<uint8_t*>(view.position(head, slot))).second);
        }
      }
    }
  }
  cache.Close(0);
  EXPECT_EQ(cache.pool().num_used(), 3);
  cache.Open(0);
  EXPECT_EQ(cache.physical_length(0, 0), 0);
  cache.Append(0, 1);
  EXPECT_EQ(cache.pool().num_used(), 6);
  EXPECT_EQ(cache.pool().peak_used(), 12);
}

// The scheduler's count and the cache's must be the same number at every moment.
TEST(KvCacheTest, AccountantCountsWhatTheCacheHolds) {
  std::mt19937 rng(3);
  constexpr int kLayers = 5, kBlock = 8, kSequences = 6;
  KvCache cache = MakeCache(kLayers, 200, kSequences, kBlock);
  CacheAccountant accountant({{.num_blocks = 200, .layers = Range{0, kLayers}, .bytes_per_block = 10},
                              {.num_blocks = 900, .layers = Range{kLayers, kLayers + 2}, .bytes_per_block = 10}},
                             kBlock);
  EXPECT_EQ(accountant.MaxTokens(), 40 * kBlock);
  EXPECT_EQ(accountant.Bytes(accountant.FullCache(9)), 2 * 10 * (kLayers + 2));
  std::vector<int64_t> tokens(kSequences, -1);
  std::vector<StageBlocks> held(kSequences);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    const int s = static_cast<int>(rng() % kSequences);
    const int64_t grown = tokens[s] + 1 + rng() % 20;
    if (tokens[s] < 0) {
      cache.Open(s);
      tokens[s] = 0;
    } else if (rng() % 8 == 0) {
      cache.Close(s);
      accountant.Release(held[s]);
      tokens[s] = -1;
    } else if (accountant.CanReplace(held[s], accountant.FullCache(grown))) {
      accountant.Replace(held[s], accountant.FullCache(grown));
      cache.Append(s, static_cast<int>(grown - tokens[s]));
      tokens[s] = grown;
    } else {
      ++refused;
    }
    ASSERT_EQ(accountant.used_blocks(), cache.pool().num_used());
  }
  EXPECT_GT(refused, 0);
}

// A cache in which every plane of every slot says whose it is, against lists that do the same: appends, compactions
// that keep different slots in each head, closes, in random order.
TEST(KvCacheTest, CompactionAgainstANaiveModel) {
  std::mt19937 rng(23);
  const std::unique_ptr<Context> context = Context::Cpu(2, DType::kFloat32);
  for (const int block : {1, 3, 16}) {
    constexpr int kLayers = 2, kHeads = 2, kSequences = 3, kDim = 5;
    const KvBlockLayout layout = {
        .kv_heads = kHeads, .head_dim = kDim, .block_size = block, .dtype = DType::kFloat32, .num_scores = 1};
    const int64_t blocks = kSequences * kLayers * (80 + block - 1) / block + 6;
    KvCache cache = *KvCache::Create({}, layout, {}, kLayers, blocks, kSequences);
    using Slots = std::vector<int32_t>;                              // the position in each slot
    std::vector<std::vector<std::vector<Slots>>> model(kSequences);  // [sequence][layer][head]; empty: not open
    std::vector<int32_t> seen(kSequences, 0);
    const auto value = [](int sequence, int layer, int head, int32_t position, int i) {
      return static_cast<float>(((sequence * 7 + layer) * 7 + head) * 1000 + position * 8 + i);
    };
    for (int step = 0; step < 4000; ++step) {
      const int s = static_cast<int>(rng() % kSequences);
      if (model[s].empty()) {
        cache.Open(s);
        model[s].assign(kLayers, std::vector<Slots>(kHeads));
        seen[s] = 0;
      } else if (rng() % 40 == 0) {
        cache.Close(s);
        model[s].clear();
      } else if (rng() % 3 == 0 && model[s][0][0].size() > 2) {
        for (int l = 0; l < kLayers; ++l) {
          const int32_t n = static_cast<int32_t>(model[s][l][0].size());
          const int32_t keep = 1 + static_cast<int32_t>(rng() % n);
          const int rows = rng() % 3 == 0 ? 1 : kHeads;
          std::vector<int32_t> kept;
          for (int row = 0; row < rows; ++row) {
            Slots all(n);
            for (int32_t i = 0; i < n; ++i) all[i] = i;
            std::shuffle(all.begin(), all.end(), rng);
            std::sort(all.begin(), all.begin() + keep);
            kept.insert(kept.end(), all.begin(), all.begin() + keep);
          }
          cache.Compact(*context, {{s, l}}, Tensor(kept.data(), DType::kInt32, {rows, keep}), {keep});
          for (int h = 0; h < kHeads; ++h) {
            Slots left;
            for (int32_t i = 0; i < keep; ++i) left.push_back(model[s][l][h][kept[(rows == 1 ? 0 : h) * keep + i]]);
            model[s][l][h] = left;
          }
        }
        cache.FreeTails(s);
      } else if (const int count = 1 + static_cast<int>(rng() % 6);
                 std::max(model[s][0][0].size(), model[s][1][0].size()) + count <= 80) {
        cache.Append(s, count);
        for (int l = 0; l < kLayers; ++l) {
          const KvView view = cache.View(s, l);
          for (int h = 0; h < kHeads; ++h) {
            for (int i = 0; i < count; ++i) {
              const int32_t slot = static_cast<int32_t>(model[s][l][h].size()), position = seen[s] + i;
              for (int d = 0; d < kDim; ++d) {
                reinterpret_cast<float*>(view.k(h, slot))[d] = value(s, l, h, position, d);
                reinterpret_cast<float*>(view.v(h, slot))[d] = -value(s, l, h, position, d);
              }
              *view.position(h, slot) = position;
              *view.score(h, slot) = value(s, l, h, position, 7);
              model[s][l][h].push_back(position);
            }
          }
        }
        seen[s] += count;
      }
      int64_t held = 0;
      for (int t = 0; t < kSequences; ++t) {
        if (model[t].empty()) continue;
        ASSERT_EQ(cache.logical_length(t), seen[t]);
        for (int l = 0; l < kLayers; ++l) {
          const KvView view = cache.View(t, l);
          ASSERT_EQ(view.num_slots, static_cast<int32_t>(model[t][l][0].size()));
          held += (view.num_slots + block - 1) / block;
          for (int h = 0; h < kHeads; ++h) {
            for (int32_t slot = 0; slot < view.num_slots; ++slot) {
              const int32_t position = model[t][l][h][slot];
              ASSERT_EQ(*view.position(h, slot), position);
              ASSERT_EQ(*view.score(h, slot), value(t, l, h, position, 7));
              ASSERT_EQ(reinterpret_cast<float*>(view.k(h, slot))[kDim - 1], value(t, l, h, position, kDim - 1));
              ASSERT_EQ(reinterpret_cast<float*>(view.v(h, slot))[0], -value(t, l, h, position, 0));
            }
          }
        }
      }
      ASSERT_EQ(cache.pool().num_used(), held);
    }
  }
}

TEST(KvCacheDeathTest, MisuseIsCaught) {
  KvCache cache = MakeCache(1, 1, 1, 4);
  EXPECT_DEATH(cache.Append(0, 1), "not open");
  cache.Open(0);
  EXPECT_DEATH(cache.Open(0), "open already");
  EXPECT_DEATH(cache.Append(0, 5), "empty");
}

}  // namespace
}  // namespace cairn
