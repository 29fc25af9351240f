// Sharding is arithmetic: which rows, columns, heads and vocabulary entries a tensor-parallel rank holds.
#ifndef CAIRN_PARALLEL_SHARD_SHARD_H_
#define CAIRN_PARALLEL_SHARD_SHARD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cairn {

struct Range {
  int64_t begin = 0, end = 0;  // half-open
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Part `index` of `parts` equal parts of [0, total); total must divide.
Range EvenShard(int64_t total, int parts, int index);

// Vocabulary rows of a rank: ceil(vocab / tp) rows each, the last ranks may have fewer (even none). Any vocabulary
// works.
Range VocabShard(int64_t vocab, int tp, int rank);

// The attention heads of a rank. tp <= kv_heads: contiguous KV heads and their query groups. tp > kv_heads (tp a
// multiple of kv_heads, the replicas a divisor of the group): each KV head lives on tp / kv_heads ranks, which split
// its query heads.
struct HeadShard {
  Range query_heads, kv_heads;
  int kv_replicas = 1;    // ranks that hold the same KV head
  int replica_index = 0;  // which of them this is
};

// INVALID_ARGUMENT names the numbers and lists the tp sizes that would work.
absl::StatusOr<HeadShard> ShardHeads(int64_t num_heads, int64_t num_kv_heads, int tp, int rank);

// Checks everything that tp must divide (heads, KV heads, intermediate size); the message lists the tp sizes that work.
absl::Status CheckTensorParallel(int64_t num_heads, int64_t num_kv_heads, int64_t intermediate_size, int tp);

}  // namespace cairn

#endif  // CAIRN_PARALLEL_SHARD_SHARD_H_
