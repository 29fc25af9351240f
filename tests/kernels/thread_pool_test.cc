#include "kernels/core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace cairn {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskOnce) {
  for (int threads : {1, 2, 3, 8, 40}) {  // more than a word has bits
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (int64_t tasks : {0, 1, 2, 3, 7, 31, 32, 33, 100, 5000}) {
      std::vector<std::atomic<int>> runs(tasks);
      std::atomic<int> bad_worker{0};
      pool.ParallelFor(tasks, [&](int64_t task, int worker) {
        runs[task].fetch_add(1);
        if (worker < 0 || worker >= threads) bad_worker.fetch_add(1);
      });
      for (int64_t i = 0; i < tasks; ++i) ASSERT_EQ(runs[i].load(), 1) << "task " << i << " of " << tasks;
      EXPECT_EQ(bad_worker.load(), 0);
    }
  }
}

// What tasks wrote is visible after the call, and what the caller wrote before it is visible to them: plain memory, so
// that ThreadSanitizer would see a missing edge.
TEST(ThreadPoolTest, OrdersMemoryAcrossJobs) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int64_t round = 1; round <= 3000; ++round) {
    pool.ParallelFor(64, [&](int64_t task, int) { values[task] += round; });
    for (int64_t& value : values) value -= 1;
  }
  for (int64_t value : values) EXPECT_EQ(value, 3000 * 3001 / 2 - 3000);
}

// Each worker has one task at a time: its scratch needs no lock.
TEST(ThreadPoolTest, WorkerIndexIsExclusive) {
  ThreadPool pool(3);
  std::vector<int> in_use(3, 0);
  std::atomic<int> clashes{0};
  for (int round = 0; round < 300; ++round) {
    pool.ParallelFor(20, [&](int64_t, int worker) {
      if (in_use[worker]++ != 0) clashes.fetch_add(1);
      in_use[worker]--;
    });
  }
  EXPECT_EQ(clashes.load(), 0);
}

// Idle workers go to sleep and are woken again.
TEST(ThreadPoolTest, WakesSleepingWorkers) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    // Ends only when three threads run tasks at the same time.
    std::atomic<int> arrived{0};
    pool.ParallelFor(3, [&](int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 3) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 3);
  }
}

TEST(ThreadPoolTest, ManyPoolsShareTheCores) {
  std::vector<std::thread> ranks;
  std::atomic<int64_t> sum{0};
  for (int rank = 0; rank < 6; ++rank) {
    ranks.emplace_back([&] {
      ThreadPool pool(2);
      for (int round = 0; round < 200; ++round) {
        pool.ParallelFor(10, [&](int64_t task, int) { sum.fetch_add(task); });
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(sum.load(), 6 * 200 * 45);
}

TEST(ThreadPoolTest, StartsAndStopsAtOnce) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 5);
}

TEST(ThreadPoolDeathTest, RefusesNestedRegionsAndNoThreads) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(ThreadPool(0), "threads: 0");
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        pool.ParallelFor(2, [&](int64_t, int) { pool.ParallelFor(2, [](int64_t, int) {}); });
      },
      "not reentrant");
}

}  // namespace
}  // namespace cairn
