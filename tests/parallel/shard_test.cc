#include "parallel/shard/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace cairn {
namespace {

using testing::HasSubstr;

// Attention shapes (query heads, KV heads, intermediate size) of real models, and odd ones.
struct Shape {
  int64_t heads, kv_heads, intermediate;
};
const Shape kShapes[] = {
    {9, 3, 1536},    // SmolLM2-135M
    {14, 2, 4864},   // Qwen2.5-0.5B
    {12, 2, 8960},   // Qwen2.5-1.5B
    {32, 8, 14336},  // Llama-3-8B
    {64, 8, 28672},  // Llama-3-70B
    {28, 4, 18944},  // Qwen2.5-7B
    {40, 8, 13824},  // Qwen2.5-14B
    {8, 8, 2048},    // no groups
    {6, 1, 288},     // one KV head
};

// The definition, rank by rank: every query head is on one rank, every KV head on as many as the replicas say, and each
// rank has exactly the KV heads that its query heads read.
TEST(ShardHeads, EveryHeadHasItsPlace) {
  for (const Shape& shape : kShapes) {
    const int64_t group = shape.heads / shape.kv_heads;
    for (int tp = 1; tp <= 16; ++tp) {
      if (!ShardHeads(shape.heads, shape.kv_heads, tp, 0).ok()) continue;
      SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " over " << tp);
      std::vector<int> query_owners(shape.heads, 0), kv_owners(shape.kv_heads, 0);
      for (int rank = 0; rank < tp; ++rank) {
        const auto shard = ShardHeads(shape.heads, shape.kv_heads, tp, rank);
        ASSERT_TRUE(shard.ok()) << shard.status();
        EXPECT_EQ(shard->query_heads.size(), shape.heads / tp);
        for (int64_t h = shard->query_heads.begin; h < shard->query_heads.end; ++h) ++query_owners[h];
        for (int64_t h = shard->kv_heads.begin; h < shard->kv_heads.end; ++h) ++kv_owners[h];
        EXPECT_EQ(shard->query_heads.begin / group, shard->kv_heads.begin);
        EXPECT_EQ((shard->query_heads.end - 1) / group + 1, shard->kv_heads.end);
        EXPECT_EQ(shard->kv_replicas, tp > shape.kv_heads ? tp / shape.kv_heads : 1);
        EXPECT_EQ(shard->replica_index, rank % shard->kv_replicas);
      }
      EXPECT_THAT(query_owners, testing::Each(1));
      EXPECT_THAT(kv_owners, testing::Each(tp > shape.kv_heads ? tp / shape.kv_heads : 1));
    }
  }
}

TEST(ShardHeads, SizesThatFit) {
  const auto sizes = [](int64_t heads, int64_t kv_heads) {
    std::vector<int> fit;
    for (int tp = 1; tp <= 16; ++tp) {
      if (ShardHeads(heads, kv_heads, tp, tp - 1).ok()) fit.push_back(tp);
    }
    return fit;
  };
  EXPECT_THAT(sizes(9, 3), testing::ElementsAre(1, 3, 9));
  EXPECT_THAT(sizes(14, 2), testing::ElementsAre(1, 2, 14));
  EXPECT_THAT(sizes(12, 2), testing::ElementsAre(1, 2, 4, 6, 12));
  EXPECT_THAT(sizes(32, 8), testing::ElementsAre(1, 2, 4, 8, 16));
  EXPECT_THAT(sizes(64, 8), testing::ElementsAre(1, 2, 4, 8, 16));
  EXPECT_THAT(sizes(28, 4), testing::ElementsAre(1, 2, 4));
}

TEST(ShardHeads, RefusesWithTheSizesThatWork) {
  const absl::Status uneven = ShardHeads(9, 3, 2, 0).status();
  EXPECT_TRUE(absl::IsInvalidArgument(uneven));
  EXPECT_THAT(std::string(uneven.message()),
              testing::AllOf(HasSubstr("tensor-parallel-size 2"), HasSubstr("9 attention heads"),
                             HasSubstr("3 KV heads"), HasSubstr("sizes that work are 1, 3, 9")));
  const absl::Status replicas = ShardHeads(14, 2, 4, 0).status();
  EXPECT_THAT(std::string(replicas.message()),
              testing::AllOf(HasSubstr("7 query heads per KV head do not split over 2 replicas"),
                             HasSubstr("sizes that work are 1, 2, 14")));
  EXPECT_TRUE(absl::IsInvalidArgument(ShardHeads(10, 3, 1, 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ShardHeads(8, 0, 1, 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ShardHeads(8, 8, 0, 0).status()));
}

TEST(CheckTensorParallel, IsHeadsAndIntermediate) {
  for (const Shape& shape : kShapes) {
    std::string sizes;
    for (int tp = 1; tp <= shape.heads; ++tp) {
      const bool fits = ShardHeads(shape.heads, shape.kv_heads, tp, 0).ok() && shape.intermediate % tp == 0;
      EXPECT_EQ(CheckTensorParallel(shape.heads, shape.kv_heads, shape.intermediate, tp).ok(), fits) << tp;
      if (fits) sizes += (sizes.empty() ? "" : ", ") + std::to_string(tp);
    }
    for (int tp : {11, 128}) {
      const absl::Status status = CheckTensorParallel(shape.heads, shape.kv_heads, shape.intermediate, tp);
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << shape.heads << " over " << tp;
      EXPECT_TRUE(std::string(status.message()).ends_with("sizes that work are " + sizes)) << status;
    }
  }
  // 9 divides the heads, but not the intermediate size.
  const absl::Status status = CheckTensorParallel(9, 3, 1536, 9);
  EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr("intermediate size 1536"),
                                                            HasSubstr("the intermediate size does not divide evenly"),
                                                            HasSubstr("sizes that work are 1, 3")));
}

TEST(EvenShard, CoversInOrder) {
  EXPECT_EQ(EvenShard(12, 3, 0), (Range{0, 4}));
  EXPECT_EQ(EvenShard(12, 3, 2), (Range{8, 12}));
  EXPECT_EQ(EvenShard(0, 2, 1), (Range{0, 0}));
  EXPECT_DEATH(EvenShard(10, 3, 0), "10 does not divide into 3");
}

TEST(VocabShard, CoversAnyVocabulary) {
  for (int64_t vocab : {1, 7, 16, 512, 32000, 49152, 128256, 151936, 152064}) {
    for (int tp = 1; tp <= 16; ++tp) {
      int64_t next = 0;
      for (int rank = 0; rank < tp; ++rank) {
        const Range shard = VocabShard(vocab, tp, rank);
        EXPECT_EQ(shard.begin, next);
        EXPECT_LE(shard.size(), (vocab + tp - 1) / tp);
        EXPECT_GE(shard.size(), 0);
        next = shard.end;
      }
      EXPECT_EQ(next, vocab) << tp;
    }
  }
  EXPECT_EQ(VocabShard(5, 4, 3).size(), 0) << "two rows each leave nothing for the last";
}

}  // namespace
}  // namespace cairn
