// The small ops at the sizes of Qwen2.5-0.5B (hidden 896, intermediate 4864, 14 heads of 64), per number of rows.
#include <numeric>
#include <vector>

#include "bench/kernels/machine.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/matmul.h"

namespace cairn::bench {
namespace {

constexpr int64_t kHidden = 896, kIntermediate = 4864, kHeads = 14, kHalf = 32, kVocabulary = 151936;

struct Matrix {
  Matrix(int64_t rows, int64_t columns) : values(rows * columns, 0.5f), rows(rows), columns(columns) {}
  Tensor tensor() { return Tensor(values.data(), DType::kFloat32, {rows, columns}); }
  std::vector<float> values;
  int64_t rows, columns;
};

void BenchRmsNorm(benchmark::State& state) {
  Matrix x(state.range(0), kHidden), y = x;
  std::vector<float> weight(kHidden, 1.0f);
  Measure(state, 0, 8.0 * x.values.size(), [&] {
    RmsNorm(SharedContext(), x.tensor(), Tensor(weight.data(), DType::kFloat32, {kHidden}), 1e-6f, y.tensor());
  });
}
BENCHMARK(BenchRmsNorm)->Arg(1)->Arg(32)->Arg(512);

void BenchRope(benchmark::State& state) {
  Matrix x(state.range(0), kHidden);
  std::vector<int32_t> positions(x.rows);
  std::iota(positions.begin(), positions.end(), 100);
  std::vector<float> inv_freq(kHalf, 0.01f);
  Measure(state, 0, 8.0 * x.values.size(), [&] {
    Rope(SharedContext(), x.tensor().SplitRows(kHeads, 2 * kHalf), Tensor(positions.data(), DType::kInt32, {x.rows}),
         Tensor(inv_freq.data(), DType::kFloat32, {kHalf}));
  });
}
BENCHMARK(BenchRope)->Arg(1)->Arg(32)->Arg(512);

void BenchSwiGlu(benchmark::State& state) {
  Matrix gate_up(state.range(0), 2 * kIntermediate), y(state.range(0), kIntermediate);
  Measure(state, 0, 4.0 * (gate_up.values.size() + y.values.size()),
          [&] { SwiGlu(SharedContext(), gate_up.tensor(), y.tensor()); });
}
BENCHMARK(BenchSwiGlu)->Arg(1)->Arg(32)->Arg(512);

void BenchAddInPlace(benchmark::State& state) {
  Matrix x(state.range(0), kHidden), y(state.range(0), kHidden);
  std::fill(y.values.begin(), y.values.end(), 0.0f);
  Measure(state, 0, 12.0 * x.values.size(), [&] { AddInPlace(SharedContext(), x.tensor(), y.tensor()); });
}
BENCHMARK(BenchAddInPlace)->Arg(1)->Arg(32)->Arg(512);

void BenchRoundToActivation(benchmark::State& state) {
  Matrix x(state.range(0), kHidden);
  Measure(state, 0, 8.0 * x.values.size(),
          [&] { RoundToActivation(SharedContext(DType::kBFloat16), x.tensor(), x.tensor()); });
}
BENCHMARK(BenchRoundToActivation)->Arg(1)->Arg(32)->Arg(512);

void BenchEmbedding(benchmark::State& state) {
  static const PackedMatrix table = PackedMatrix::Create(Device{}, DType::kBFloat16, kVocabulary, kHidden).value();
  Matrix y(state.range(0), kHidden);
  std::vector<int32_t> ids(y.rows);
  for (int64_t i = 0; i < y.rows; ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
  Measure(state, 0, 6.0 * y.values.size(),
          [&] { Embedding(SharedContext(), Tensor(ids.data(), DType::kInt32, {y.rows}), table, 0, y.tensor()); });
}
BENCHMARK(BenchEmbedding)->Arg(1)->Arg(32)->Arg(512);

}  // namespace
}  // namespace cairn::bench
