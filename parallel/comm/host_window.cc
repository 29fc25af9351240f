#include "parallel/comm/host_window.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr int kKindShift = 56;

uint64_t Encode(const WindowOperation& operation) {
  return static_cast<uint64_t>(operation.kind) << kKindShift | operation.bytes;
}

std::string Describe(uint64_t doing) {
  const auto kind = static_cast<WindowOperation::Kind>(doing >> kKindShift);
  return absl::StrCat(WindowOperation::Name(kind), " of ", doing & ((uint64_t{1} << kKindShift) - 1), " bytes");
}

}  // namespace

const char* WindowOperation::Name(Kind kind) {
  switch (kind) {
    case kAllReduce:
      return "AllReduce";
    case kAllGather:
      return "AllGather";
    case kGather:
      return "Gather";
    case kBroadcast:
      return "Broadcast";
  }
  return "?";
}

size_t HostWindow::BytesFor(int size) { return size * sizeof(Flags) + 2 * kSlotBytes * (size + 1); }

HostWindow::HostWindow(uint8_t* memory, int rank, int size, const WaitPolicy& policy, std::vector<std::string> names,
                       std::string self, std::function<void()> progress)
    : memory_(memory),
      rank_(rank),
      size_(size),
      policy_(policy),
      names_(std::move(names)),
      self_(std::move(self)),
      progress_(std::move(progress)) {}

uint8_t* HostWindow::slot(int rank) const {
  return memory_ + size_ * sizeof(Flags) + (2 * static_cast<size_t>(rank) + step_ % 2) * kSlotBytes;
}

uint8_t* HostWindow::result() const { return slot(size_); }

absl::Status HostWindow::WaitFor(const std::atomic<uint64_t>& flag, uint64_t step, int rank) {
  Waiter waiter(policy_);
  while (flag.load(std::memory_order_acquire) < step) {
    if (!waiter.Pause(progress_)) {
      return absl::DeadlineExceededError(absl::StrCat(WindowOperation::Name(operation_.kind), " on ", self_,
                                                      ": waited ", policy_.timeout_seconds, " s for ", names_[rank]));
    }
  }
  return absl::OkStatus();
}

absl::Status HostWindow::Begin(const WindowOperation& operation) {
  CAIRN_CHECK(operation.bytes <= kSlotBytes, operation.bytes);
  ++step_;
  operation_ = operation;
  if (all_finished_ + 2 < step_) {
    for (int rank = 0; rank < size_; ++rank) {
      if (rank != rank_) CAIRN_RETURN_IF_ERROR(WaitFor(flags(rank).finished, step_ - 2, rank));
    }
    all_finished_ = step_ - 2;
  }
  flags(rank_).doing[step_ % 2].store(Encode(operation), std::memory_order_relaxed);
  return absl::OkStatus();
}

void HostWindow::Arrive() { flags(rank_).arrived.store(step_, std::memory_order_release); }

// Read after the rank's arrival; it cannot be two steps ahead, so that this is what it says about this step.
absl::Status HostWindow::CheckSameOperation(int rank) const {
  const uint64_t theirs = flags(rank).doing[step_ % 2].load(std::memory_order_relaxed);
  if (theirs == Encode(operation_)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(Describe(Encode(operation_)), " on ", self_, ": ", names_[rank], " is in ",
                                          Describe(theirs), "; all ranks of a group must call the same collectives"));
}

absl::Status HostWindow::WaitArrived(int rank) {
  CAIRN_RETURN_IF_ERROR(WaitFor(flags(rank).arrived, step_, rank));
  return CheckSameOperation(rank);
}

absl::Status HostWindow::WaitAllArrived() {
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) CAIRN_RETURN_IF_ERROR(WaitArrived(rank));
  }
  all_finished_ = step_ - 1;
  return absl::OkStatus();
}

void HostWindow::MarkReduced() { flags(rank_).reduced.store(step_, std::memory_order_release); }

absl::Status HostWindow::WaitReduced(int rank) { return WaitFor(flags(rank).reduced, step_, rank); }

void HostWindow::Finish() { flags(rank_).finished.store(step_, std::memory_order_release); }

}  // namespace cairn
