// Fork and join in about a microsecond while the workers are awake.
//
// One 64-bit word says what there is to do: the job's number in the high half, the tasks not yet claimed in the low
// half. A claim is a compare-and-swap that takes one off, so that a worker that wakes late, when its job is over, fails
// to claim and touches nothing of the next job; the caller therefore waits for tasks, never for sleeping workers.
//
// Of up to 32 tasks the low half has a bit each, and a worker takes its own (every num_threads-th) before others': what
// is called for the same heads again and again then finds them in its core's cache. Of more it is their number.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <bit>
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

constexpr uint32_t kMostBits = 32;

// An odd job's tasks are told by bits.
uint32_t JobOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
bool HasBits(uint64_t word) { return JobOf(word) % 2 == 1; }
uint32_t UnclaimedOf(uint64_t word) { return static_cast<uint32_t>(word); }

}  // namespace

struct ThreadPool::Impl {
  using Body = absl::FunctionRef<void(int64_t, int)>;

  explicit Impl(int num_threads) : num_threads(num_threads), spins(num_threads <= AvailableCores() ? kSpins : 0) {
    for (uint32_t bit = 0; bit < kMostBits; bit += num_threads) own_bits |= 1u << bit;
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
    const uint32_t own = own_bits << std::min<uint32_t>(worker, kMostBits - 1);
    uint32_t count = 0;
    uint64_t word = todo.load(std::memory_order_acquire);
    while (UnclaimedOf(word) > 0) {
      const uint32_t left = UnclaimedOf(word), bit = std::countr_zero((left & own) != 0 ? left & own : left);
      const uint64_t taken = HasBits(word) ? uint64_t{1} << bit : 1;
      if (!todo.compare_exchange_weak(word, word - taken, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      (*body)(HasBits(word) ? bit : num_tasks - left, worker);
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
    const bool has_bits = tasks <= kMostBits;
    job = (job / 2 + 1) * 2 + (has_bits ? 1 : 0);
    todo.store(static_cast<uint64_t>(job) << 32 | (has_bits ? ~uint32_t{0} >> (kMostBits - tasks) : tasks));
    if (sleepers.load() > 0) Wake();
    uint32_t done = finished.fetch_add(RunTasks(0), std::memory_order_acq_rel);
    const auto all_done = [&] { return (done = finished.load(std::memory_order_acquire)) == tasks; };
    while (!Poll(all_done)) finished.wait(done, std::memory_order_acquire);
    busy.store(false, std::memory_order_release);
  }

  const int num_threads;
  const int spins;
  uint32_t own_bits = 0;  // of worker 0
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
