#include "engine/runner/shard_sampler.h"

#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "parallel/shard/parallel_sample.h"

namespace cairn {

absl::StatusOr<ShardSampler> ShardSampler::Create(Device device, int64_t max_rows, int64_t vocab_size, int tp) {
  ShardSampler sampler;
  sampler.vocab_size_ = vocab_size;
  const int64_t words = SampleScratchWords(max_rows, vocab_size, tp);
  const size_t bytes =
      static_cast<size_t>(2 * max_rows + words) * sizeof(int64_t) + static_cast<size_t>(max_rows) * sizeof(float);
  CAIRN_ASSIGN_OR_RETURN(sampler.memory_, Buffer::Allocate(device, bytes));
  uint8_t* at = sampler.memory_.data();
  const auto take = [&](DType dtype, int64_t count) {
    const Tensor tensor(at, dtype, {count}, device);
    at += tensor.size_bytes();
    return tensor;
  };
  sampler.fractions_ = take(DType::kInt64, max_rows);
  sampler.tokens_ = take(DType::kInt64, max_rows);
  sampler.scratch_ = take(DType::kInt64, words);
  sampler.inverse_temperature_ = take(DType::kFloat32, max_rows);
  return sampler;
}

absl::Status ShardSampler::Sample(Context& context, Communicator& tp, const Tensor& logits, const Sampler& sampler,
                                  absl::Span<const Sampler::Row> rows) {
  const int64_t M = static_cast<int64_t>(rows.size());
  host_inverse_temperature_.clear();
  host_fractions_.clear();
  bool any_drawn = false;
  for (const Sampler::Row& row : rows) {
    host_inverse_temperature_.push_back(sampler.InverseTemperature(row));
    host_fractions_.push_back(static_cast<int64_t>(sampler.Fraction(row)));
    any_drawn = any_drawn || host_inverse_temperature_.back() != 0;
  }
  const SampleRows plain = {.inverse_temperature = inverse_temperature_.Rows(0, M),
                            .fractions = fractions_.Rows(0, M),
                            .any_drawn = any_drawn};
  CopyFromHost(context, host_inverse_temperature_.data(), plain.inverse_temperature);
  CopyFromHost(context, host_fractions_.data(), plain.fractions);
  return VocabParallelSample(context, tp, logits, vocab_size_, plain, scratch_, tokens_.Rows(0, M));
}

void ShardSampler::TakeTokens(Context& context, int64_t count, std::vector<int64_t>& tokens) const {
  tokens.resize(static_cast<size_t>(count));
  CopyToHost(context, tokens_.Rows(0, count), tokens.data());
}

}  // namespace cairn
