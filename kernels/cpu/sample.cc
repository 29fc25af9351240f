#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

// An exponential costs more than what ParallelRows counts as an element's work.
constexpr int64_t kExpElements = 16;

struct Row {
  const float* logits;
  int64_t size;
  float inverse_temperature, scaled_max;

  int64_t Weight(int64_t i) const { return SampleWeight(logits[i] * inverse_temperature - scaled_max); }
};

Row RowOf(const Tensor& logits, int64_t row, int64_t best, float inverse_temperature) {
  return {logits.data<float>() + row * logits.row_stride(), logits.dim(1), inverse_temperature,
          SampleKeyLogit(best) * inverse_temperature};
}

bool IsGreedy(int64_t best, float inverse_temperature) {
  return inverse_temperature == 0 || !std::isfinite(SampleKeyLogit(best) * inverse_temperature);
}

}  // namespace

void BestTokens(Context& context, const Tensor& logits, int64_t vocab_begin, const Tensor& best) {
  const int64_t V = logits.dim(1);
  ParallelRows(context, logits.dim(0), V, [&](int64_t row) {
    const float* const l = logits.data<float>() + row * logits.row_stride();
    int64_t key = 0;
    for (int64_t i = 0; i < V; ++i) key = std::max(key, SampleKey(l[i], static_cast<int32_t>(vocab_begin + i)));
    best.data<int64_t>()[row] = key;
  });
}

void SampleTotals(Context& context, const Tensor& logits, const Tensor& best, const Tensor& inverse_temperature,
                  const Tensor& totals) {
  const int64_t chunks = totals.dim(1);
  ParallelRows(context, logits.dim(0) * chunks, kSampleChunk * kExpElements, [&](int64_t task) {
    const int64_t row = task / chunks, begin = task % chunks * kSampleChunk;
    const int64_t key = best.data<int64_t>()[row];
    const float inverse = inverse_temperature.data<float>()[row];
    int64_t sum = 0;
    if (!IsGreedy(key, inverse)) {
      const Row r = RowOf(logits, row, key, inverse);
      for (int64_t i = begin; i < std::min(r.size, begin + kSampleChunk); ++i) sum += r.Weight(i);
    }
    totals.data<int64_t>()[task] = sum;
  });
}

void SampleTokens(Context& context, const Tensor& logits, int64_t vocab_begin, int rank, const Tensor& best,
                  const Tensor& inverse_temperature, const Tensor& fractions, const Tensor& totals,
                  const Tensor& tokens) {
  const int64_t ranks = totals.dim(0), M = totals.dim(1), chunks = totals.dim(2);
  ParallelRows(context, M, kSampleChunk * kExpElements, [&](int64_t row) {
    const int64_t key = best.data<int64_t>()[row];
    const float inverse = inverse_temperature.data<float>()[row];
    int64_t& token = tokens.data<int64_t>()[row];
    token = IsGreedy(key, inverse) ? SampleKeyToken(key) : -1;
    if (token >= 0) return;
    const auto total_of = [&](int64_t r, int64_t chunk) {
      return totals.data<int64_t>()[(r * M + row) * chunks + chunk];
    };
    int64_t total = 0;
    for (int64_t r = 0; r < ranks; ++r) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += total_of(r, chunk);
    }
    int64_t left = SampleTarget(total, static_cast<uint64_t>(fractions.data<int64_t>()[row]));
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) left -= total_of(r, chunk);
    }
    if (left < 0) return;
    int64_t chunk = 0;
    while (chunk < chunks && left >= total_of(rank, chunk)) left -= total_of(rank, chunk++);
    if (chunk == chunks) return;
    const Row r = RowOf(logits, row, key, inverse);
    int64_t i = chunk * kSampleChunk;
    while (left >= r.Weight(i)) left -= r.Weight(i++);
    token = vocab_begin + i;
  });
}

}  // namespace cairn::cpu
