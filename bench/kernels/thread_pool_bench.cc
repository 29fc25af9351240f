// What handing work to threads costs: an empty parallel region while the workers are awake, and after they slept.
#include <thread>

#include "bench/kernels/machine.h"
#include "kernels/core/thread_pool.h"

namespace cairn::bench {
namespace {

void ForkJoin(benchmark::State& state) {
  ThreadPool& threads = SharedContext().threads();
  Measure(state, 0, 0,
          [&] { threads.ParallelFor(state.range(0), [](int64_t task, int) { benchmark::DoNotOptimize(task); }); });
}
BENCHMARK(ForkJoin)->Arg(2)->Arg(16)->Arg(128);

void ForkJoinAfterSleep(benchmark::State& state) {
  ThreadPool& threads = SharedContext().threads();
  double best = 1e9;
  for (auto _ : state) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const double begin = Seconds();
    threads.ParallelFor(2, [](int64_t task, int) { benchmark::DoNotOptimize(task); });
    best = std::min(best, Seconds() - begin);
  }
  state.counters["best_us"] = best * 1e6;
}
BENCHMARK(ForkJoinAfterSleep)->Iterations(50);

}  // namespace
}  // namespace cairn::bench
