// Fork and join in about a microsecond while the workers are awake.
//
// One 64-bit word says what there is to do: the job's number in the high half, the tasks not yet claimed in the low
// half. A claim is a compare-and-swap that takes one off, so that a worker that wakes late, when its job is over, fails
// to claim and touches nothing of the next job; the caller therefore waits for tasks, never for sleeping workers.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

#include "kernels/core/check.h"

namespace cairn {
namespace {

// About 30 us of polling (a pause is some 40 cycles on recent x86): the gap between two ops of a step is shorter.
constexpr int kSpins = 2000;
// Then let others have the core: a yield returns at once when nobody wants it (about 0.5 us).
constexpr int kYields = 100;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

uint32_t JobOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
uint32_t UnclaimedOf(uint64_t word) { return static_cast<uint32_t>(word); }

}  // namespace

struct ThreadPool::Impl {
  using Body = absl::FunctionRef<void(int64_t, int)>;

  explicit Impl(int num_threads) : num_threads(num_threads), spins(num_threads <= AvailableCores() ? kSpins : 0) {
    workers.reserve(num_threads - 1);
    for (int worker = 1; worker < num_threads; ++worker) workers.emplace_back([this, worker] { WorkerLoop(worker); });
  }

  ~Impl() {
    stop.store(true);
    Wake();
    for (std::thread& worker : workers) worker.join();
  }

  void Wake() {
    wake.fetch_add(1);
    wake.notify_all();
  }

  // Polls until done() holds: spins, then yields; false when the patience ran out.
  template <typename Done>
  bool Poll(const Done& done) const {
    for (int i = 0; i < spins; ++i) {
      if (done()) return true;
      Pause();
    }
    for (int i = 0; i < kYields; ++i) {
      if (done()) return true;
      std::this_thread::yield();
    }
    return done();
  }

  // Claims and runs tasks of the current job until none is left; returns how many. The job's fields are read only after
  // a claim: from then until the task is counted as finished the caller cannot have left ParallelFor.
  uint32_t RunTasks(int worker) {
    uint32_t count = 0;
    uint64_t word = todo.load(std::memory_order_acquire);
    while (UnclaimedOf(word) > 0) {
      if (!todo.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      (*body)(num_tasks - UnclaimedOf(word), worker);
      ++count;
      word = todo.load(std::memory_order_acquire);
    }
    return count;
  }

  void WorkerLoop(int worker) {
    uint32_t seen = 0;
    while (!stop.load()) {
      const auto has_work = [&] { return JobOf(todo.load()) != seen || stop.load(std::memory_order_relaxed); };
      if (!Poll(has_work)) {
        sleepers.fetch_add(1);
        const uint32_t ticket = wake.load();
        if (!has_work()) wake.wait(ticket);
        sleepers.fetch_sub(1);
        continue;
      }
      seen = JobOf(todo.load());
      const uint32_t count = RunTasks(worker);
      if (count > 0) {
        finished.fetch_add(count, std::memory_order_acq_rel);
        finished.notify_one();  // costs a load unless the caller sleeps
      }
    }
  }

  void Run(uint32_t tasks, const Body& job_body) {
    CAIRN_CHECK(!busy.exchange(true, std::memory_order_acquire), "ParallelFor is not reentrant");
    body = &job_body;
    num_tasks = tasks;
    finished.store(0, std::memory_order_relaxed);
    todo.store((static_cast<uint64_t>(++job) << 32) | tasks);
    if (sleepers.load() > 0) Wake();
    uint32_t done = finished.fetch_add(RunTasks(0), std::memory_order_acq_rel);
    const auto all_done = [&] { return (done = finished.load(std::memory_order_acquire)) == tasks; };
    while (!Poll(all_done)) finished.wait(done, std::memory_order_acquire);
    busy.store(false, std::memory_order_release);
  }

  const int num_threads;
  const int spins;
  // Written by the caller between jobs, read by whoever claimed a task.
  const Body* body = nullptr;
  uint32_t num_tasks = 0;
  uint32_t job = 0;
  std::atomic<bool> busy{false};
  alignas(64) std::atomic<uint64_t> todo{0};
  alignas(64) std::atomic<uint32_t> finished{0};
  alignas(64) std::atomic<uint32_t> wake{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
};

ThreadPool::ThreadPool(int num_threads) {
  CAIRN_CHECK(num_threads >= 1, "threads: ", num_threads);
  impl_ = std::make_unique<Impl>(num_threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::num_threads() const { return impl_->num_threads; }

void ThreadPool::ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int worker)> body) {
  CAIRN_CHECK(num_tasks <= INT32_MAX, num_tasks, " tasks");
  if (impl_->num_threads == 1 || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  impl_->Run(static_cast<uint32_t>(num_tasks), body);
}

}  // namespace cairn
