#include "engine/cache/kv_cache.h"

#include <gtest/gtest.h>

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
  CacheAccountant accountant({{.num_blocks = 200, .layers = {0, kLayers}, .bytes_per_block = 10},
                              {.num_blocks = 900, .layers = {kLayers, kLayers + 2}, .bytes_per_block = 10}},
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

TEST(KvCacheDeathTest, MisuseIsCaught) {
  KvCache cache = MakeCache(1, 1, 1, 4);
  EXPECT_DEATH(cache.Append(0, 1), "not open");
  cache.Open(0);
  EXPECT_DEATH(cache.Open(0), "open already");
  EXPECT_DEATH(cache.Append(0, 5), "empty");
}

}  // namespace
}  // namespace cairn
