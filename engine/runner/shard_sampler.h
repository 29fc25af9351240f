// Tokens of the rows that need no whole rows of logits on the host (Sampler::NeedsLogits): on every rank of the last
// stage, where its logits are.
#ifndef CAIRN_ENGINE_RUNNER_SHARD_SAMPLER_H_
#define CAIRN_ENGINE_RUNNER_SHARD_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/runner/sampler.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "parallel/comm/communicator.h"

namespace cairn {

class ShardSampler {
 public:
  static absl::StatusOr<ShardSampler> Create(Device device, int64_t max_rows, int64_t vocab_size, int tp);

  // Gives the work: logits [rows, V] f32 of this rank's part of the vocabulary. Collective over tp.
  absl::Status Sample(Context& context, Communicator& tp, const Tensor& logits, const Sampler& sampler,
                      absl::Span<const Sampler::Row> rows);
  // Waits for it: tokens[i] answers rows[i] of the `count` rows given last.
  void TakeTokens(Context& context, int64_t count, std::vector<int64_t>& tokens) const;

 private:
  int64_t vocab_size_ = 0;
  Buffer memory_;
  Tensor fractions_, tokens_, scratch_, inverse_temperature_;  // [max_rows], scratch_ in words
  // On their way to the device.
  std::vector<float> host_inverse_temperature_;
  std::vector<int64_t> host_fractions_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_SHARD_SAMPLER_H_
