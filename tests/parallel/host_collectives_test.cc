// Collectives through a window, with threads as the ranks of the host: what the thread sanitizer can watch. Processes
// run the same code in mpi_conformance.
#include "parallel/comm/host_collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

class HostThreads {
 public:
  explicit HostThreads(int size, double timeout_seconds = 60) : size_(size) {
    const size_t bytes = (HostWindow::BytesFor(size) + 4095) / 4096 * 4096;
    memory_ = static_cast<uint8_t*>(std::aligned_alloc(4096, bytes));
    std::fill(memory_, memory_ + bytes, uint8_t{0});
    policy_ = {.timeout_seconds = timeout_seconds, .crowded = true};
  }
  ~HostThreads() { std::free(memory_); }

  std::vector<absl::Status> Run(const std::function<absl::Status(HostWindow&)>& body) {
    std::vector<absl::Status> results(size_);
    std::vector<std::thread> threads;
    std::vector<std::string> names;
    for (int rank = 0; rank < size_; ++rank) names.push_back("rank " + std::to_string(rank));
    for (int rank = 0; rank < size_; ++rank) {
      threads.emplace_back([&, rank] {
        HostWindow window(memory_, rank, size_, policy_, names, names[rank] + " of " + std::to_string(size_), [] {});
        results[rank] = body(window);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
  }

 private:
  const int size_;
  uint8_t* memory_;
  WaitPolicy policy_;
};

void ExpectOk(const std::vector<absl::Status>& results) {
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
}

absl::Status Expect(bool condition, const char* what) {
  return condition ? absl::OkStatus() : absl::InternalError(what);
}

absl::Status SumStep(HostWindow& window, int64_t count, int salt) {
  std::vector<float> data(count);
  for (int64_t i = 0; i < count; ++i) data[i] = static_cast<float>((window.rank() * 13 + i + salt) % 512);
  CAIRN_RETURN_IF_ERROR(HostAllReduce(window, data.data(), count, DType::kFloat32, ReduceOp::kSum));
  for (int64_t i = 0; i < count; ++i) {
    float expected = 0;
    for (int rank = 0; rank < window.size(); ++rank) expected += static_cast<float>((rank * 13 + i + salt) % 512);
    CAIRN_RETURN_IF_ERROR(Expect(data[i] == expected, "a wrong sum"));
  }
  return absl::OkStatus();
}

absl::Status GatherStep(HostWindow& window, size_t bytes, int root, int salt) {
  const auto value = [&](int rank) { return static_cast<uint8_t>(rank * 16 + salt % 16); };
  std::vector<uint8_t> in(bytes, value(window.rank())), out(bytes * window.size());
  std::vector<uint8_t*> parts;
  for (int rank = 0; rank < window.size(); ++rank) parts.push_back(out.data() + rank * bytes);
  CAIRN_RETURN_IF_ERROR(HostGather(window, in.data(), bytes, parts, root));
  if (window.rank() == root) {
    for (size_t i = 0; i < out.size(); ++i) {
      CAIRN_RETURN_IF_ERROR(Expect(out[i] == value(static_cast<int>(i / bytes)), "a wrong gather"));
    }
  }
  CAIRN_RETURN_IF_ERROR(HostAllGather(window, in.data(), bytes, out.data()));
  for (size_t i = 0; i < out.size(); ++i) {
    CAIRN_RETURN_IF_ERROR(Expect(out[i] == value(static_cast<int>(i / bytes)), "a wrong all-gather"));
  }
  return absl::OkStatus();
}

absl::Status BroadcastStep(HostWindow& window, size_t bytes, int root, int salt) {
  std::vector<uint8_t> data(bytes, static_cast<uint8_t>(window.rank() == root ? salt : 255));
  CAIRN_RETURN_IF_ERROR(HostBroadcast(window, WindowOperation::kBroadcast, data.data(), bytes, root));
  for (uint8_t byte : data) CAIRN_RETURN_IF_ERROR(Expect(byte == static_cast<uint8_t>(salt), "a wrong broadcast"));
  return absl::OkStatus();
}

// The order of the ranks is shaken by sleeps; the window is written again as soon as its rules allow.
TEST(HostCollectivesThreads, MixedOperationsBackToBack) {
  for (int size : {1, 2, 3, 5}) {
    HostThreads host(size);
    ExpectOk(host.Run([](HostWindow& window) -> absl::Status {
      std::mt19937 shared(7), mine(static_cast<uint32_t>(window.rank()));
      for (int step = 0; step < 400; ++step) {
        if (mine() % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(mine() % 300));
        const int64_t count = 1 + shared() % (step % 20 == 0 ? 200'000 : 3000);
        const int root = static_cast<int>(shared() % window.size());
        switch (shared() % 3) {
          case 0:
            CAIRN_RETURN_IF_ERROR(SumStep(window, count, step));
            break;
          case 1:
            CAIRN_RETURN_IF_ERROR(GatherStep(window, count, root, step));
            break;
          default:
            CAIRN_RETURN_IF_ERROR(BroadcastStep(window, count, root, step));
        }
      }
      return absl::OkStatus();
    }));
  }
}

// A root that only sends may be two steps ahead of the slowest, not more.
TEST(HostCollectivesThreads, ARootDoesNotOverrunTheOthers) {
  HostThreads host(3);
  ExpectOk(host.Run([](HostWindow& window) -> absl::Status {
    for (int step = 0; step < 300; ++step) {
      if (window.rank() == 2 && step % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      CAIRN_RETURN_IF_ERROR(BroadcastStep(window, 64 + step, /*root=*/0, step));
    }
    return absl::OkStatus();
  }));
}

TEST(HostCollectivesThreads, NothingToDoForNoElements) {
  HostThreads host(2);
  ExpectOk(host.Run([](HostWindow& window) -> absl::Status {
    // One rank alone: an empty tensor needs nobody.
    if (window.rank() == 0) return absl::OkStatus();
    CAIRN_RETURN_IF_ERROR(HostAllReduce(window, nullptr, 0, DType::kFloat32, ReduceOp::kSum));
    return HostBroadcast(window, WindowOperation::kBroadcast, nullptr, 0, 0);
  }));
}

TEST(HostCollectivesThreads, RanksInDifferentOperationsSayso) {
  HostThreads host(2);
  const auto results = host.Run([](HostWindow& window) -> absl::Status {
    std::vector<float> data(8);
    const int64_t count = window.rank() == 0 ? 8 : 4;
    return HostAllReduce(window, data.data(), count, DType::kFloat32, ReduceOp::kSum);
  });
  EXPECT_TRUE(absl::IsInternal(results[0])) << results[0];
  EXPECT_THAT(std::string(results[0].message()),
              testing::HasSubstr("AllReduce of 32 bytes on rank 0 of 2: rank 1 is in AllReduce of 16 bytes"));
}

TEST(HostCollectivesThreads, ALateRankIsNamed) {
  HostThreads host(3, /*timeout_seconds=*/0.1);
  const auto results = host.Run([](HostWindow& window) -> absl::Status {
    if (window.rank() == 1) return absl::OkStatus();
    std::vector<float> data(8);
    return HostAllReduce(window, data.data(), 8, DType::kFloat32, ReduceOp::kSum);
  });
  for (int rank : {0, 2}) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(results[rank])) << results[rank];
    EXPECT_EQ(std::string(results[rank].message()),
              "AllReduce on rank " + std::to_string(rank) + " of 3: waited 0.1 s for rank 1");
  }
}

TEST(SliceOf, CoversAtCacheLines) {
  for (int64_t count : {0, 1, 15, 16, 17, 1000, 65537}) {
    for (int parts : {1, 2, 3, 7}) {
      for (size_t element_bytes : {4, 8}) {
        int64_t next = 0;
        for (int part = 0; part < parts; ++part) {
          const SliceRange slice = SliceOf(count, parts, part, element_bytes);
          EXPECT_EQ(slice.begin, next);
          EXPECT_TRUE(slice.begin == count || slice.begin * element_bytes % 64 == 0);
          next = slice.end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

}  // namespace
}  // namespace cairn
