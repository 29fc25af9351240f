// What a compaction of one layer costs, piece by piece, at the shapes of real models: n slots are budget + buffer.
// Operations: of the redundancy those of every pair of keys once, whether or not it can be spared ("lonely" keys have
// no near-duplicate, so that no pair can; "clustered" ones have many, as the keys of real text do); of the window
// scores those of the logits. Bytes: of the keys read once; of the compaction those read and written.
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "bench/kernels/machine.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"

namespace cairn::bench {
namespace {

struct Shape {
  const char* name;
  int heads, kv_heads, d;
  int32_t slots;
};
constexpr Shape kShapes[] = {{"llama-3-8b/n:1152", 32, 8, 128, 1152},
                             {"llama-3-8b/n:8192", 32, 8, 128, 8192},
                             {"qwen2.5-0.5b/n:384", 14, 2, 64, 384},
                             {"smollm2-135m/n:384", 9, 3, 64, 384},
                             {"stories260k/n:1152", 8, 4, 8, 1152}};
constexpr int kWindow = 8;

enum class KeysLike { kLonely, kClustered };

// A layer of one sequence whose blocks lie one after the other.
struct Layer {
  Layer(const Shape& shape, DType dtype, KeysLike like) : shape(shape) {
    const KvBlockLayout layout = {shape.kv_heads, shape.d, 16, dtype};
    const int32_t n = shape.slots, blocks = (n + 15) / 16;
    const int64_t row = static_cast<int64_t>(shape.kv_heads) * shape.d;
    pool = Buffer::Allocate(Device{}, blocks * layout.block_bytes()).value();
    table.resize(blocks);
    std::iota(table.begin(), table.end(), 0);
    kv = {layout, pool.data(), table.data(), n};
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> k(n * row), centers(16 * row);
    for (float& x : centers) x = normal(random);
    for (int64_t i = 0; i < n * row; ++i) {
      k[i] = normal(random);
      if (like == KeysLike::kClustered) k[i] = k[i] * 0.5f + centers[i / row % 16 * row + i % row];
    }
    queries.resize(kWindow * shape.heads * shape.d);
    for (float& x : queries) x = normal(random);
    std::vector<int32_t> positions(n);
    std::iota(positions.begin(), positions.end(), 0);
    const Tensor kt(k.data(), DType::kFloat32, {n, shape.kv_heads, shape.d});
    KvAppend(SharedContext(), kt, kt, Tensor(positions.data(), DType::kInt32, {n}), {{0, n, kv}});
    scores.resize(static_cast<int64_t>(shape.kv_heads) * n);
  }

  int64_t candidates() const { return shape.slots - kWindow; }
  Tensor q() { return Tensor(queries.data(), DType::kFloat32, {kWindow, shape.heads, shape.d}); }
  Tensor out() { return Tensor(scores.data(), DType::kFloat32, {shape.kv_heads, candidates()}); }
  double key_bytes() const {
    return static_cast<double>(shape.slots) * shape.kv_heads * shape.d *
           static_cast<double>(DTypeSize(kv.layout.dtype));
  }
  double logit_flops() const { return 2.0 * kWindow * shape.heads * shape.d * shape.slots; }
  double pair_flops() const { return 1.0 * shape.slots * shape.slots * shape.kv_heads * shape.d; }

  Shape shape;
  Buffer pool;
  std::vector<int32_t> table;
  KvView kv;
  std::vector<float> queries, scores;
};

void BenchRedundancy(benchmark::State& state, const Shape& shape, DType dtype, KeysLike like) {
  Layer layer(shape, dtype, like);
  Measure(state, layer.pair_flops(), 0, [&] {
    KeyRedundancy(SharedContext(), {layer.kv}, kWindow, 0.5f, RedundancyVariant::kCode, false, layer.out());
  });
}

void BenchImportance(benchmark::State& state, const Shape& shape, DType dtype) {
  Layer layer(shape, dtype, KeysLike::kLonely);
  Measure(state, layer.logit_flops(), layer.key_bytes(),
          [&] { WindowImportance(SharedContext(), {layer.kv}, layer.q(), kWindow, layer.out()); });
}

void BenchAttention(benchmark::State& state, const Shape& shape, DType dtype) {
  Layer layer(shape, dtype, KeysLike::kLonely);
  Measure(state, layer.logit_flops(), layer.key_bytes(), [&] {
    WindowAttention(SharedContext(), {layer.kv}, layer.q(), WindowReduce::kMeanOfHeads, kWindow, layer.out());
  });
}

void BenchDifference(benchmark::State& state, const Shape& shape, DType dtype) {
  Layer layer(shape, dtype, KeysLike::kLonely);
  Measure(state, 0, layer.key_bytes(), [&] { KeyDifference(SharedContext(), {layer.kv}, kWindow, layer.out()); });
}

void BenchSelect(benchmark::State& state, const Shape& shape) {
  Layer layer(shape, DType::kBFloat16, KeysLike::kLonely);
  KeyDifference(SharedContext(), {layer.kv}, kWindow, layer.out());
  const int64_t keep = shape.slots - 128;
  const int32_t candidates = static_cast<int32_t>(layer.candidates());
  std::vector<int32_t> kept(shape.kv_heads * keep);
  const Tensor k(kept.data(), DType::kInt32, {shape.kv_heads, keep});
  Measure(state, 0, 4.0 * static_cast<double>(layer.scores.size()), [&] {
    SelectTopK(SharedContext(), layer.out(), {{candidates, kWindow, static_cast<int32_t>(keep)}}, 0, k);
  });
}

// Slots 0, 9, 10, 11 .. stay: nearly all move.
void BenchCompact(benchmark::State& state, const Shape& shape, DType dtype) {
  Layer layer(shape, dtype, KeysLike::kLonely);
  const int64_t keep = shape.slots - 128;
  std::vector<int32_t> kept(keep);
  for (int64_t i = 0; i < keep; ++i) kept[i] = static_cast<int32_t>(i + std::min<int64_t>(128, i * 8));
  const Tensor k(kept.data(), DType::kInt32, {1, keep});
  const double moved = 2.0 * static_cast<double>(keep) / shape.slots * 2 * layer.key_bytes();
  Measure(state, 0, moved, [&] { KvCompact(SharedContext(), {layer.kv}, k, {static_cast<int32_t>(keep)}); });
}

[[maybe_unused]] const bool kRegistered = [] {
  const auto name = [](const char* op, const Shape& shape, const char* detail) {
    return std::string(op) + "/" + shape.name + "/" + detail;
  };
  for (const Shape& shape : kShapes) {
    for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      const std::string type = DTypeName(dtype);
      benchmark::RegisterBenchmark(name("KeyRedundancy", shape, (type + "/lonely").c_str()).c_str(), BenchRedundancy,
                                   shape, dtype, KeysLike::kLonely);
      benchmark::RegisterBenchmark(name("KeyRedundancy", shape, (type + "/clustered").c_str()).c_str(), BenchRedundancy,
                                   shape, dtype, KeysLike::kClustered);
      benchmark::RegisterBenchmark(name("WindowImportance", shape, type.c_str()).c_str(), BenchImportance, shape,
                                   dtype);
      benchmark::RegisterBenchmark(name("WindowAttention", shape, type.c_str()).c_str(), BenchAttention, shape, dtype);
      benchmark::RegisterBenchmark(name("KeyDifference", shape, type.c_str()).c_str(), BenchDifference, shape, dtype);
      benchmark::RegisterBenchmark(name("KvCompact", shape, type.c_str()).c_str(), BenchCompact, shape, dtype);
    }
    benchmark::RegisterBenchmark(name("SelectTopK", shape, "float32").c_str(), BenchSelect, shape);
  }
  return true;
}();

}  // namespace
}  // namespace cairn::bench
