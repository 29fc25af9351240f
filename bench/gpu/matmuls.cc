// cuBLASLt at the weight products of an 8B model on one GPU and of a 70B's shard over 8: what the library prefers, and
// the best of its first four, with and without a workspace.
#include <cmath>
#include <string>
#include <vector>

#include "bench/gpu/gpu.h"
#include "kernels/core/check.h"
#include "kernels/core/check_cuda.h"
#include "kernels/core/dtype.h"
#include "kernels/ops/quantize.h"

namespace cairn::bench {
namespace {

constexpr int kCandidates = 4;

struct Weights {
  const char* name;
  int64_t n, k;
};
constexpr Weights kWeights[] = {{"8b/qkv", 6144, 4096},       {"8b/o", 4096, 4096},
                                {"8b/gate_up", 28672, 4096},  {"8b/down", 4096, 14336},
                                {"8b/head", 128256, 4096},    {"70b_tp8/qkv", 1280, 8192},
                                {"70b_tp8/o", 8192, 1024},    {"70b_tp8/gate_up", 7168, 8192},
                                {"70b_tp8/down", 8192, 3584}, {"70b_tp8/head", 16032, 8192}};
constexpr Weights kSmallWeights[] = {{"small/wide", 96, 32}, {"small/tall", 32, 96}};

// Elements of y against sums in double precision: y is rounded to bf16, and fp8's fast accumulation keeps some 14 bits.
void CheckSamples(Gpu& gpu, const LtMatMul::Problem& p, const Buffer& y) {
  gpu.context().Synchronize();
  for (int sample = 0; sample < 4; ++sample) {
    const int64_t row = sample * 7919 % p.m, column = (sample * 104729 + p.n - 1) % p.n;
    double sum = 0, norm = 0;
    for (int64_t i = 0; i < p.k; ++i) {
      const double term = gpu.RandomElement(p.type, row * p.k + i) * gpu.RandomElement(p.type, column * p.k + i);
      sum += term;
      norm += term * term;
    }
    uint16_t bits = 0;
    CAIRN_CUDA_CHECK(cudaMemcpy(&bits, y.data() + (row * p.n + column) * 2, sizeof(bits), cudaMemcpyDeviceToHost));
    const double got = BFloat16ToFloat(bits), allowed = std::abs(sum) / 128 + std::sqrt(norm) / 16;
    CAIRN_CHECK(std::abs(got - sum) <= allowed, LtTypeName(p.type), " [", p.m, ", ", p.k, "] x [", p.n, ", ", p.k,
                "]: y[", row, ", ", column, "] is ", got, ", not ", sum);
  }
}

// Of one shape: x and y at their largest, and what the algorithms work in.
struct Operands {
  Buffer x, w, y, workspace, scale;
};

void MeasureOne(Gpu& gpu, const Weights& weights, LtType type, int64_t rows, size_t workspace_bytes,
                const Operands& operands) {
  // fp8 takes multiples of 16 rows; fewer are padded.
  const int64_t m = type == LtType::kFloat8 ? Float8Padded(rows) : rows;
  const LtMatMul::Problem problem = {
      type, m, weights.n, weights.k, workspace_bytes, reinterpret_cast<const float*>(operands.scale.data())};
  LtMatMul product(gpu.lt(), problem, kCandidates);
  Json fields = {{"weights", weights.name},
                 {"n", weights.n},
                 {"k", weights.k},
                 {"m", rows},
                 {"type", LtTypeName(type)},
                 {"workspace", workspace_bytes},
                 {"algorithms", product.num_algorithms()}};
  if (product.num_algorithms() == 0) return gpu.Report("matmul", fields);
  double preferred = 0, best = 0;
  int best_algorithm = 0;
  for (int i = 0; i < product.num_algorithms(); ++i) {
    const double seconds = gpu.Time([&] {
      product.Run(i, operands.x.data(), operands.w.data(), operands.y.data(), operands.workspace.data(), gpu.stream());
    });
    if (i == 0) {
      CheckSamples(gpu, problem, operands.y);
      preferred = best = seconds;
    }
    if (seconds < best) {
      best = seconds;
      best_algorithm = i;
    }
  }
  fields["best_us"] = best * 1e6;
  fields["best_algorithm"] = best_algorithm;
  const double elements = static_cast<double>(weights.n) * static_cast<double>(weights.k);
  const double flops = 2 * static_cast<double>(rows) * elements;
  const double bytes = (elements + static_cast<double>(m * weights.k)) * static_cast<double>(LtTypeSize(type)) +
                       2.0 * static_cast<double>(m * weights.n);
  gpu.Report("matmul", fields, preferred, bytes, flops);
}

}  // namespace

void MeasureMatMuls(Gpu& gpu) {
  const std::vector<Weights> shapes = gpu.small()
                                          ? std::vector<Weights>(std::begin(kSmallWeights), std::end(kSmallWeights))
                                          : std::vector<Weights>(std::begin(kWeights), std::end(kWeights));
  const std::vector<int64_t> rows =
      gpu.small() ? std::vector<int64_t>{1, 16} : std::vector<int64_t>{1, 8, 16, 32, 64, 128, 256, 512};
  const size_t workspace_bytes = gpu.small() ? 4096 : size_t{32} << 20;
  const int64_t most = std::max<int64_t>(rows.back(), 16);
  for (const Weights& weights : shapes) {
    for (const LtType type : {LtType::kBFloat16, LtType::kFloat8}) {
      Operands operands;
      operands.x = gpu.AllocateRandom(type, most * weights.k);
      operands.w = gpu.AllocateRandom(type, weights.n * weights.k);
      operands.y = gpu.Allocate(static_cast<size_t>(most * weights.n * 2));
      operands.workspace = gpu.Allocate(workspace_bytes);
      operands.scale = gpu.Allocate(sizeof(float));
      const float one = 1;
      CAIRN_CUDA_CHECK(cudaMemcpy(operands.scale.data(), &one, sizeof(one), cudaMemcpyHostToDevice));
      for (const int64_t m : rows) {
        for (const size_t workspace : {size_t{0}, workspace_bytes}) {
          MeasureOne(gpu, weights, type, m, workspace, operands);
        }
      }
    }
  }
}

}  // namespace cairn::bench
