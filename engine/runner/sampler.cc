#include "engine/runner/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/runner/philox.h"
#include "kernels/core/check.h"
#include "kernels/ops/sample.h"

namespace cairn {
namespace {

using Candidate = std::pair<float, int32_t>;

// Better first: the larger logit, ties to the lower id.
bool Better(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// The first largest. A NaN is never chosen while there is a number.
int32_t ArgMax(const float* logits, int64_t vocab) {
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    if (logits[i] > best) {
      best = logits[i];
      token = static_cast<int32_t>(i);
    }
  }
  return token;
}

// The `count` best of all, in order.
void TopOf(const float* logits, int64_t vocab, int64_t count, std::vector<Candidate>& out) {
  out.clear();
  for (int64_t i = 0; i < vocab; ++i) out.emplace_back(logits[i], static_cast<int32_t>(i));
  count = std::min<int64_t>(count, vocab);
  std::partial_sort(out.begin(), out.begin() + count, out.end(), Better);
  out.resize(count);
}

// Keeps the smallest set of best candidates whose probability reaches top_p, sorted. Sorts only as far as needed.
void KeepNucleus(double top_p, float max_logit, std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp(candidate.first - max_logit);
  const double wanted = top_p * total;
  double sum = 0;
  size_t sorted = 0;
  for (size_t kept = 0; kept < candidates.size(); ++kept) {
    if (kept == sorted) {
      sorted = std::min(candidates.size(), std::max<size_t>(64, 4 * sorted));
      std::partial_sort(candidates.begin() + kept, candidates.begin() + sorted, candidates.end(), Better);
    }
    sum += std::exp(candidates[kept].first - max_logit);
    if (sum >= wanted) {
      candidates.resize(kept + 1);
      return;
    }
  }
}

}  // namespace

Sampler::Sampler(int max_sequences, int64_t vocab_size, int num_workers)
    : vocab_size_(vocab_size), states_(max_sequences), candidates_(num_workers) {}

void Sampler::Open(const OpenSequence& open) {
  State& state = states_[open.sequence];
  state.spec = open;
  state.counts_tokens = !open.history.empty();
  state.answer_counts.clear();
  for (size_t i = 0; i < open.history.size(); ++i) {
    state.answer_counts[open.history[i]] += static_cast<int32_t>(i) >= open.prompt_length ? 1 : 0;
  }
}

void Sampler::Close(int32_t sequence) { states_[sequence] = State(); }

bool Sampler::NeedsLogits(const Row& row) const {
  const State& state = states_[row.sequence];
  const SamplerSpec& spec = state.spec.sampler;
  if (spec.num_logprobs >= 0 || state.counts_tokens) return true;
  if (IsMasked(state, row) && !state.spec.masked_tokens.empty()) return true;
  return spec.temperature != 0 && (spec.top_k > 0 || spec.top_p < 1 || spec.min_p > 0);
}

float Sampler::InverseTemperature(const Row& row) const {
  const float temperature = states_[row.sequence].spec.sampler.temperature;
  return temperature == 0 ? 0 : 1 / temperature;
}

uint64_t Sampler::Fraction(const Row& row) const {
  const SamplerSpec& spec = states_[row.sequence].spec.sampler;
  return PhiloxFraction(spec.seed, spec.request_key, static_cast<uint32_t>(spec.index),
                        static_cast<uint32_t>(row.position));
}

void Sampler::ApplyPenalties(const State& state, float* logits) const {
  const SamplerSpec& spec = state.spec.sampler;
  for (const auto& [token, count] : state.answer_counts) {
    if (token >= vocab_size_) continue;
    float& logit = logits[token];
    if (spec.repetition_penalty != 1)
      logit = logit > 0 ? logit / spec.repetition_penalty : logit * spec.repetition_penalty;
    if (count > 0) logit -= spec.presence_penalty + spec.frequency_penalty * static_cast<float>(count);
  }
}

int32_t Sampler::Draw(const Row& row, const float* logits, std::vector<Candidate>& candidates) const {
  const SamplerSpec& spec = states_[row.sequence].spec.sampler;
  const int32_t best = ArgMax(logits, vocab_size_);
  const float inverse_temperature = InverseTemperature(row);
  const float scaled_max = logits[best] * inverse_temperature;
  if (!std::isfinite(scaled_max)) return best;  // nothing to draw from
  const float least = spec.min_p > 0 ? scaled_max + std::log(spec.min_p) : -std::numeric_limits<float>::infinity();
  candidates.clear();
  for (int64_t i = 0; i < vocab_size_; ++i) {
    const float scaled = logits[i] * inverse_temperature;
    if (scaled >= least && scaled > -std::numeric_limits<float>::infinity()) {
      candidates.emplace_back(scaled, static_cast<int32_t>(i));
    }
  }
  if (spec.top_k > 0 && spec.top_k < static_cast<int64_t>(candidates.size())) {
    std::partial_sort(candidates.begin(), candidates.begin() + spec.top_k, candidates.end(), Better);
    candidates.resize(spec.top_k);
  }
  if (spec.top_p < 1) KeepNucleus(spec.top_p, scaled_max, candidates);
  int64_t total = 0;
  for (const Candidate& candidate : candidates) total += SampleWeight(candidate.first - scaled_max);
  int64_t left = SampleTarget(total, Fraction(row));
  const auto drawn = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
    left -= SampleWeight(candidate.first - scaled_max);
    return left < 0;
  });
  CAIRN_CHECK(drawn != candidates.end(), "a draw beyond the total");
  return drawn->second;
}

TokenLogprob Sampler::SampleRow(float* logits, const Row& row, std::vector<Candidate>& candidates) const {
  const State& state = states_[row.sequence];
  const SamplerSpec& spec = state.spec.sampler;
  TokenLogprob result;
  double log_sum = 0;
  float max_logit = 0;
  const bool wants_logprobs = spec.num_logprobs >= 0;
  if (wants_logprobs) {
    max_logit = logits[ArgMax(logits, vocab_size_)];
    double total = 0;
    for (int64_t i = 0; i < vocab_size_; ++i) total += std::exp(logits[i] - max_logit);
    log_sum = max_logit + std::log(total);
    TopOf(logits, vocab_size_, spec.num_logprobs, candidates);
    for (const auto& [logit, token] : candidates) result.top.emplace_back(token, static_cast<float>(logit - log_sum));
  }
  // The raw logit of the chosen token is needed after masks and penalties have changed the row.
  std::vector<std::pair<int32_t, float>> raw;
  const auto remember = [&](int32_t token) {
    if (wants_logprobs) raw.emplace_back(token, logits[token]);
  };
  if (IsMasked(state, row)) {
    for (int32_t token : state.spec.masked_tokens) {
      if (token >= vocab_size_) continue;
      remember(token);
      logits[token] = -std::numeric_limits<float>::infinity();
    }
  }
  if (state.counts_tokens) {
    for (const auto& [token, count] : state.answer_counts) {
      if (token < vocab_size_) remember(token);
    }
    ApplyPenalties(state, logits);
  }
  result.token = spec.temperature == 0 ? ArgMax(logits, vocab_size_) : Draw(row, logits, candidates);
  if (wants_logprobs) {
    const auto known =
        std::find_if(raw.begin(), raw.end(), [&](const auto& entry) { return entry.first == result.token; });
    result.logprob = static_cast<float>((known == raw.end() ? logits[result.token] : known->second) - log_sum);
  }
  return result;
}

void Sampler::Sample(Context& context, const Tensor& logits, absl::Span<const Row> rows,
                     std::vector<StepResult::Token>& tokens) {
  CAIRN_CHECK(logits.dim(0) == static_cast<int64_t>(rows.size()) && logits.dim(1) == vocab_size_);
  tokens.resize(rows.size());
  float* data = logits.data<float>();
  context.threads().ParallelFor(static_cast<int64_t>(rows.size()), [&](int64_t i, int worker) {
    tokens[i] = {rows[i].sequence, SampleRow(data + i * logits.row_stride(), rows[i], candidates_[worker])};
  });
  for (const StepResult::Token& token : tokens) {
    State& state = states_[token.sequence];
    if (state.counts_tokens) ++state.answer_counts[token.sampled.token];
  }
}

}  // namespace cairn
