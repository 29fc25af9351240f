// The only place where ranks agree on what is kept: before scoring (the queries of one KV head's replicas are shared)
// or after it (scores are summed in 64-bit fixed point), and the check that they did.
#ifndef CAIRN_COMPRESSION_RANK_SYNC_H_
#define CAIRN_COMPRESSION_RANK_SYNC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/core/tensor.h"
#include "parallel/comm/communicator.h"
#include "parallel/shard/shard.h"

namespace cairn {

class RankSync {
 public:
  // `tp`: the ranks that share this stage's layers; not owned. `first_rank`: the world rank of its rank 0, for messages
  // (tp ranks are adjacent).
  RankSync(Communicator* tp, const HeadShard& heads, int first_rank)
      : tp_(tp), replicas_(heads.kv_replicas), first_rank_(first_rank) {}

  // Whether a KV head's queries are spread over ranks (tp > kv_heads).
  bool is_replicated() const { return replicas_ > 1; }
  int tp_size() const { return tp_->size(); }
  // The tp rank that holds part `replica` of this rank's KV head.
  int Peer(int replica) const { return tp_->rank() / replicas_ * replicas_ + replica; }

  // all [tp, floats]: every rank's `mine` [floats].
  absl::Status GatherQueries(const Tensor& mine, const Tensor& all) { return tp_->AllGather(mine, all); }
  // Sums int64 scores over the group, in place.
  absl::Status SumScores(const Tensor& fixed) {
    return tp_->size() == 1 ? absl::OkStatus() : tp_->AllReduce(fixed, ReduceOp::kSum);
  }

  // Who must have the same values: all ranks of the group, or the replicas of one KV head.
  enum class Among { kGroup, kReplicas };
  // INTERNAL where values[i] differs among those ranks: names two of them and describe(i). Collective.
  absl::Status CheckAgreement(absl::Span<const int64_t> values, Among among,
                              absl::FunctionRef<std::string(size_t)> describe);

 private:
  Communicator* tp_;
  int replicas_;
  int first_rank_;
  std::vector<int64_t> gathered_;
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_RANK_SYNC_H_
