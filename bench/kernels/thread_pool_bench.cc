// What handing work to threads costs while the workers are awake, and after they slept.
#include <atomic>
#include <thread>

#include "bench/kernels/machine.h"
#include "kernels/core/thread_pool.h"

namespace cairn::bench {
namespace {

// One task per thread, done when all threads have come: from the call to the last arrival, and back.
void Rendezvous(ThreadPool& threads) {
  std::atomic<int> arrived{0};
  threads.ParallelFor(threads.num_threads(), [&](int64_t, int) {
    arrived.fetch_add(1);
    while (arrived.load() < threads.num_threads()) {
    }
  });
}

void ForkJoin(benchmark::State& state) {
  Measure(state, 0, 0, [] { Rendezvous(SharedContext().threads()); });
}
BENCHMARK(ForkJoin);

void ForkJoinAfterSleep(benchmark::State& state) {
  double best = 1e9;
  for (auto _ : state) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const double begin = Seconds();
    Rendezvous(SharedContext().threads());
    best = std::min(best, Seconds() - begin);
  }
  state.counters["best_us"] = best * 1e6;
}
BENCHMARK(ForkJoinAfterSleep)->Iterations(50);

// Tasks that do nothing: what claiming one costs.
void EmptyTasks(benchmark::State& state) {
  Measure(state, 0, 0, [&] {
    SharedContext().threads().ParallelFor(state.range(0), [](int64_t task, int) { benchmark::DoNotOptimize(task); });
  });
}
BENCHMARK(EmptyTasks)->Arg(2)->Arg(16)->Arg(128);

}  // namespace
}  // namespace cairn::bench
