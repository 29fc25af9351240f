#include "compression/rank_sync.h"

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::Status RankSync::CheckAgreement(absl::Span<const int64_t> values, Among among,
                                      absl::FunctionRef<std::string(size_t)> describe) {
  const int size = tp_->size();
  if (size == 1 || values.empty()) return absl::OkStatus();
  const int64_t count = static_cast<int64_t>(values.size());
  gathered_.resize(size * count);
  CAIRN_RETURN_IF_ERROR(tp_->AllGather(Tensor(const_cast<int64_t*>(values.data()), DType::kInt64, {count}),
                                       Tensor(gathered_.data(), DType::kInt64, {size, count})));
  // Every rank looks at all groups of replicas, so that the error is everybody's.
  const int peers = among == Among::kGroup ? size : replicas_;
  for (int64_t i = 0; i < count; ++i) {
    for (int rank = 0; rank < size; ++rank) {
      const int first = rank / peers * peers;
      const int64_t expected = gathered_[first * count + i], found = gathered_[rank * count + i];
      if (expected == found) continue;
      return absl::InternalError(absl::StrCat(
          "ranks ", first_rank_ + first, " and ", first_rank_ + rank, " disagree on what to keep of ", describe(i),
          " (fingerprints ", absl::Hex(expected, absl::kZeroPad16), " and ", absl::Hex(found, absl::kZeroPad16),
          "): their caches would no longer be the same. This is a fault of the machine or of Cairn; run again, and "
          "report "
          "it if it comes back"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn
