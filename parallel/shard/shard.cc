#include "parallel/shard/shard.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

bool HeadsFit(int64_t num_heads, int64_t num_kv_heads, int64_t tp) {
  if (tp <= num_kv_heads) return num_kv_heads % tp == 0;
  return tp % num_kv_heads == 0 && (num_heads / num_kv_heads) % (tp / num_kv_heads) == 0;
}

// "1, 2, 4": every tp at which `fits` holds; none is larger than the number of query heads.
template <typename Fits>
std::string SizesThatWork(int64_t num_heads, Fits fits) {
  std::vector<int64_t> sizes;
  for (int64_t tp = 1; tp <= num_heads; ++tp) {
    if (fits(tp)) sizes.push_back(tp);
  }
  return absl::StrJoin(sizes, ", ");
}

absl::Status CheckHeads(int64_t num_heads, int64_t num_kv_heads, int tp) {
  if (num_heads < 1 || num_kv_heads < 1 || num_heads % num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(num_heads, " attention heads and ", num_kv_heads,
                                                   " KV heads: both must be positive, and the KV heads must divide ",
                                                   "the attention heads"));
  }
  if (tp < 1) return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size ", tp, " must be at least 1"));
  return absl::OkStatus();
}

// Why the heads do not split, for a tp that does not fit.
std::string HeadsReason(int64_t num_heads, int64_t num_kv_heads, int tp) {
  if (tp < num_kv_heads) return absl::StrCat(num_kv_heads, " KV heads do not divide evenly");
  if (tp % num_kv_heads != 0) {
    return absl::StrCat(num_kv_heads, " KV heads cannot be replicated evenly");
  }
  return absl::StrCat(num_heads / num_kv_heads, " query heads per KV head do not split over ", tp / num_kv_heads,
                      " replicas");
}

}  // namespace

Range EvenShard(int64_t total, int parts, int index) {
  CAIRN_CHECK(parts >= 1 && 0 <= index && index < parts, "part ", index, " of ", parts);
  CAIRN_CHECK(total >= 0 && total % parts == 0, total, " does not divide into ", parts);
  const int64_t each = total / parts;
  return {each * index, each * (index + 1)};
}

Range VocabShard(int64_t vocab, int tp, int rank) {
  CAIRN_CHECK(vocab >= 0 && tp >= 1 && 0 <= rank && rank < tp, "rank ", rank, " of ", tp, ", vocabulary ", vocab);
  const int64_t each = (vocab + tp - 1) / tp;
  return {std::min(each * rank, vocab), std::min(each * (rank + 1), vocab)};
}

absl::StatusOr<HeadShard> ShardHeads(int64_t num_heads, int64_t num_kv_heads, int tp, int rank) {
  CAIRN_RETURN_IF_ERROR(CheckHeads(num_heads, num_kv_heads, tp));
  CAIRN_CHECK(0 <= rank && rank < tp, "rank ", rank, " of ", tp);
  if (!HeadsFit(num_heads, num_kv_heads, tp)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor-parallel-size ", tp, " does not fit ", num_heads, " attention heads and ", num_kv_heads,
                     " KV heads (", HeadsReason(num_heads, num_kv_heads, tp), "): sizes that work are ",
                     SizesThatWork(num_heads, [&](int64_t size) { return HeadsFit(num_heads, num_kv_heads, size); })));
  }
  HeadShard shard;
  shard.query_heads = EvenShard(num_heads, tp, rank);
  if (tp <= num_kv_heads) {
    shard.kv_heads = EvenShard(num_kv_heads, tp, rank);
  } else {
    shard.kv_replicas = static_cast<int>(tp / num_kv_heads);
    shard.replica_index = rank % shard.kv_replicas;
    shard.kv_heads = {rank / shard.kv_replicas, rank / shard.kv_replicas + 1};
  }
  return shard;
}

absl::Status CheckTensorParallel(int64_t num_heads, int64_t num_kv_heads, int64_t intermediate_size, int tp) {
  CAIRN_RETURN_IF_ERROR(CheckHeads(num_heads, num_kv_heads, tp));
  if (intermediate_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("intermediate size ", intermediate_size, " must be positive"));
  }
  const auto fits = [&](int64_t size) {
    return HeadsFit(num_heads, num_kv_heads, size) && intermediate_size % size == 0;
  };
  if (fits(tp)) return absl::OkStatus();
  std::vector<std::string> reasons;
  if (!HeadsFit(num_heads, num_kv_heads, tp)) reasons.push_back(HeadsReason(num_heads, num_kv_heads, tp));
  if (intermediate_size % tp != 0) reasons.push_back("the intermediate size does not divide evenly");
  return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size ", tp, " does not fit ", num_heads,
                                                 " attention heads, ", num_kv_heads, " KV heads and intermediate size ",
                                                 intermediate_size, " (", absl::StrJoin(reasons, "; "),
                                                 "): sizes that work are ", SizesThatWork(num_heads, fits)));
}

}  // namespace cairn
