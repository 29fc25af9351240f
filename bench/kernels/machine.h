// What this machine can do, measured when the program starts: the yardstick of every share reported. And how a
// benchmark is timed: by its best iteration, since other programs come and go beside it.
#ifndef CAIRN_BENCH_KERNELS_MACHINE_H_
#define CAIRN_BENCH_KERNELS_MACHINE_H_

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "kernels/core/buffer.h"
#include "kernels/core/context.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cairn::bench {

inline double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Shared by the benchmarks, so that threads and scratch are made once. Threads: CAIRN_BENCH_THREADS, else all cores.
inline Context& SharedContext(DType activation = DType::kFloat32) {
  static std::map<DType, std::unique_ptr<Context>> contexts;
  std::unique_ptr<Context>& context = contexts[activation];
  if (context == nullptr) {
    const char* threads = std::getenv("CAIRN_BENCH_THREADS");
    context = Context::Cpu(
        threads != nullptr ? std::atoi(threads) : static_cast<int>(std::thread::hardware_concurrency()), activation);
  }
  return *context;
}

// Fused multiply-adds on registers; returns the floating-point operations made. Twelve chains hide the latency.
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) inline double FmaLoop256(int64_t n, float* sink) {
  __m256 sums[12], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (__m256& s : sums) s = b;
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (__m256& s : sums) s = _mm256_fmadd_ps(s, a, b);
  }
  for (__m256 s : sums) sink[0] += _mm256_cvtss_f32(s);
  return 12.0 * 16 * static_cast<double>(n);
}
__attribute__((target("avx512f"))) inline double FmaLoop512(int64_t n, float* sink) {
  __m512 sums[12], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (__m512& s : sums) s = b;
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (__m512& s : sums) s = _mm512_fmadd_ps(s, a, b);
  }
  for (__m512 s : sums) sink[0] += _mm512_cvtss_f32(s);
  return 12.0 * 32 * static_cast<double>(n);
}
#endif
inline double FmaLoop(int64_t n, float* sink) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return FmaLoop512(n, sink);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return FmaLoop256(n, sink);
#endif
  float sums[8] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (float& s : sums) s = s * 0.999f + 0.001f;
  }
  for (float s : sums) sink[0] += s;
  return 16.0 * static_cast<double>(n);
}

struct Machine {
  double gflops = 0;     // float32, all threads
  double read_gbps = 0;  // from memory: 256 MB in turns of 32, all threads
};

inline Machine MeasureMachine() {
  Machine machine;
  Context& context = SharedContext();
  const int threads = context.threads().num_threads();
  constexpr int64_t kWords = int64_t{1} << 25, kParts = 8, kFmas = 100000;
  Buffer memory = Buffer::Allocate(Device{}, kWords * sizeof(uint64_t)).value();
  uint64_t* words = reinterpret_cast<uint64_t*>(memory.data());
  std::fill_n(words, kWords, 1);
  // Many short runs (0.2 ms; 1 ms), so that some fall into a moment when nothing else runs.
  float sink = 0;
  const double flops = threads * FmaLoop(1, &sink) * kFmas;
  for (int repeat = 0; repeat < 300; ++repeat) {
    const double begin = Seconds();
    context.threads().ParallelFor(threads, [&](int64_t, int) {
      float result = 0;
      benchmark::DoNotOptimize(FmaLoop(kFmas, &result));
      benchmark::DoNotOptimize(result);
    });
    machine.gflops = std::max(machine.gflops, flops / (Seconds() - begin) / 1e9);
  }
  // Four streams per task: one alone does not keep enough reads under way.
  constexpr int64_t kTasks = 64, kStreams = 4, kStream = kWords / kParts / kTasks / kStreams;
  for (int repeat = 0; repeat < 40 * kParts; ++repeat) {
    const double begin = Seconds();
    context.threads().ParallelFor(kTasks, [&](int64_t task, int) {
      const uint64_t* from = words + (repeat % kParts * kTasks + task) * kStream * kStreams;
      uint64_t sums[16] = {};  // the compiler makes vector registers of them
      for (int64_t i = 0; i < kStream; i += 8) {
        for (int64_t s = 0; s < kStreams; ++s) {
          for (int64_t j = 0; j < 8; ++j) sums[s % 2 * 8 + j] += from[s * kStream + i + j];
        }
      }
      benchmark::DoNotOptimize(sums);
    });
    machine.read_gbps = std::max(machine.read_gbps, kWords / kParts * 8 / (Seconds() - begin) / 1e9);
  }
  return machine;
}

inline const Machine& ThisMachine() {
  static const Machine machine = MeasureMachine();
  return machine;
}

// Runs `iteration` until the benchmark has its time; reports the best one's time, its rates and their shares of the
// machine's (zero flops or bytes: not reported).
template <typename Iteration>
void Measure(benchmark::State& state, double flops, double bytes, const Iteration& iteration) {
  const Machine& machine = ThisMachine();
  double best = 1e9;
  iteration();  // warm-up: scratch grows, threads wake
  for (auto _ : state) {
    const double begin = Seconds();
    iteration();
    best = std::min(best, Seconds() - begin);
  }
  state.counters["best_us"] = best * 1e6;
  if (flops > 0) {
    state.counters["GFLOP/s"] = flops / best / 1e9;
    state.counters["of_peak"] = flops / best / 1e9 / machine.gflops;
  }
  if (bytes > 0) {
    state.counters["GB/s"] = bytes / best / 1e9;
    state.counters["of_read"] = bytes / best / 1e9 / machine.read_gbps;
  }
}

}  // namespace cairn::bench

#endif  // CAIRN_BENCH_KERNELS_MACHINE_H_
