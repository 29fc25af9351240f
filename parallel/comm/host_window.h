// The memory through which the ranks of one host hold collectives, and the flags that keep them in step.
//
// A collective is a sequence of steps, each over at most kSlotBytes. In a step a rank may write its slot and say so
// (Arrive), read the slots of ranks that have arrived, write a part of the common result and say so (MarkReduced), read
// parts that are done, and leave (Finish). Every rank takes every step, and steps are numbered alike on all.
//
// Slots and results exist twice, for even and odd steps. Step k writes over what step k - 2 read, so that Begin(k)
// waits until every rank has finished k - 2; a rank that arrives at k - 1 has, which is why reductions never wait here.
#ifndef CAIRN_PARALLEL_COMM_HOST_WINDOW_H_
#define CAIRN_PARALLEL_COMM_HOST_WINDOW_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/comm/waiter.h"

namespace cairn {

// What a rank is doing, for errors and to notice ranks that do something else.
struct WindowOperation {
  enum Kind : uint8_t { kAllReduce, kAllGather, kGather, kBroadcast };
  Kind kind = kAllReduce;
  uint64_t bytes = 0;  // of the step

  static const char* Name(Kind kind);
};

class HostWindow {
 public:
  // Of 64 KiB to 1 MiB the fastest for AllReduce on two cores (212 us for 1 MiB; 270 us at 256 KiB, 280 us at 64 KiB):
  // smaller ones synchronise more often, larger ones leave the L2 cache.
  static constexpr size_t kSlotBytes = 512 << 10;

  // Of the shared memory for `size` ranks, all zero at first.
  static size_t BytesFor(int size);
  // `memory` is shared by the ranks and outlives the window. `names[i]` is what errors call rank i; `self` is how they
  // begin. `progress` as in Waiter.
  HostWindow(uint8_t* memory, int rank, int size, const WaitPolicy& policy, std::vector<std::string> names,
             std::string self, std::function<void()> progress);

  int rank() const { return rank_; }
  int size() const { return size_; }

  // The waits below fail with DEADLINE_EXCEEDED, or INTERNAL when a rank has arrived with another operation.
  absl::Status Begin(const WindowOperation& operation);
  uint8_t* slot(int rank) const;
  uint8_t* result() const;
  void Arrive();
  absl::Status WaitArrived(int rank);
  absl::Status WaitAllArrived();
  void MarkReduced();
  absl::Status WaitReduced(int rank);
  void Finish();

 private:
  // Two cache lines each: prefetchers fetch lines in pairs.
  struct alignas(128) Flags {
    std::atomic<uint64_t> arrived, reduced, finished;  // the latest step
    std::atomic<uint64_t> doing[2];                    // kind and bytes of an even and an odd step
  };

  Flags& flags(int rank) const { return reinterpret_cast<Flags*>(memory_)[rank]; }
  absl::Status WaitFor(const std::atomic<uint64_t>& flag, uint64_t step, int rank);
  absl::Status CheckSameOperation(int rank) const;

  uint8_t* const memory_;
  const int rank_, size_;
  const WaitPolicy policy_;
  const std::vector<std::string> names_;
  const std::string self_;
  const std::function<void()> progress_;
  uint64_t step_ = 0;
  uint64_t all_finished_ = 0;  // every rank is known to have finished this step
  WindowOperation operation_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_HOST_WINDOW_H_
