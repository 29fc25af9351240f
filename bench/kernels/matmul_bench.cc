// Every weight product of two small models at decode and prefill sizes, with bf16 weights from memory: each iteration
// uses another copy of the matrix, so that none is still in a cache (as in a model, where a step passes over all
// weights).
#include <memory>
#include <vector>

#include "bench/kernels/machine.h"
#include "kernels/cpu/kernels.h"
#include "kernels/ops/matmul.h"

namespace cairn::bench {
namespace {

struct Layer {
  const char* name;
  int64_t N, K;
};

constexpr Layer kLayers[] = {
    {"qwen2.5-0.5b/qkv", 1152, 896},   {"qwen2.5-0.5b/o", 896, 896},        {"qwen2.5-0.5b/gate_up", 9728, 896},
    {"qwen2.5-0.5b/down", 896, 4864},  {"qwen2.5-0.5b/head", 151936, 896},  {"smollm2-135m/qkv", 960, 576},
    {"smollm2-135m/o", 576, 576},      {"smollm2-135m/gate_up", 3072, 576}, {"smollm2-135m/down", 576, 1536},
    {"smollm2-135m/head", 49152, 576},
};

constexpr size_t kColdBytes = size_t{160} << 20;

std::vector<PackedMatrix> Copies(const Layer& layer, DType dtype) {
  std::vector<PackedMatrix> copies;
  std::vector<float> row(layer.K);
  size_t bytes = 0;
  while (copies.empty() || bytes < kColdBytes) {
    copies.push_back(PackedMatrix::Create(Device{}, dtype, layer.N, layer.K).value());
    for (int64_t n = 0; n < layer.N; ++n) {
      for (int64_t k = 0; k < layer.K; ++k) row[k] = static_cast<float>((n * 31 + k * 17) % 64) / 64.0f;
      copies.back().PackRows(n, 1, row.data(), DType::kFloat32);
    }
    bytes += copies.back().size_bytes();
  }
  return copies;
}

void BenchMatMul(benchmark::State& state, const Layer& layer, int64_t M, DType weights, DType activation) {
  Context& context = SharedContext(activation);
  const std::vector<PackedMatrix> copies = Copies(layer, weights);
  std::vector<float> x(M * layer.K, 0.5f), y(M * layer.N);
  const Tensor xs(x.data(), DType::kFloat32, {M, layer.K}), ys(y.data(), DType::kFloat32, {M, layer.N});
  size_t next = 0;
  Measure(state, 2.0 * M * layer.N * layer.K, static_cast<double>(copies[0].size_bytes()),
          [&] { MatMul(context, xs, copies[next++ % copies.size()], ys); });
}

[[maybe_unused]] const bool kRegistered = [] {
  for (int64_t M : {1, 2, 4, 8, 32, 128, 512}) {
    for (const Layer& layer : kLayers) {
      // The head of a prefill is computed for the last token only.
      if (M > 32 && layer.N > 40000) continue;
      const std::string name = "MatMul/bf16/" + std::string(layer.name) + "/M:" + std::to_string(M);
      benchmark::RegisterBenchmark(name.c_str(), BenchMatMul, layer, M, DType::kBFloat16, DType::kFloat32);
      if (SharedContext().cpu_kernels().multiply_bf16_pairs != nullptr) {
        benchmark::RegisterBenchmark((name + "/bf16_activations").c_str(), BenchMatMul, layer, M, DType::kBFloat16,
                                     DType::kBFloat16);
      }
    }
    for (DType weights : {DType::kFloat32, DType::kFloat16, DType::kFloat8E4M3, DType::kInt8}) {
      const std::string name =
          "MatMul/" + std::string(DTypeName(weights)) + "/qwen2.5-0.5b/gate_up/M:" + std::to_string(M);
      benchmark::RegisterBenchmark(name.c_str(), BenchMatMul, kLayers[2], M, weights, DType::kFloat32);
    }
  }
  return true;
}();

}  // namespace
}  // namespace cairn::bench
