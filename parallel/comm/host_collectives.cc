#include "parallel/comm/host_collectives.h"

#include <algorithm>
#include <cstring>

#include "absl/container/inlined_vector.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/reduce.h"

namespace cairn {
namespace {

// Up to this size every rank sums everything itself, which saves a second round of flags; beyond it each sums a slice
// and takes the others' results. With two and four ranks the two are even from 8 to 64 KiB; more ranks favour slices.
constexpr size_t kOneShotBytes = 32 << 10;

constexpr size_t kCacheLine = 64;

absl::InlinedVector<const void*, 16> Slots(const HostWindow& window, size_t offset_bytes) {
  absl::InlinedVector<const void*, 16> slots(window.size());
  for (int rank = 0; rank < window.size(); ++rank) slots[rank] = window.slot(rank) + offset_bytes;
  return slots;
}

absl::Status ReduceStep(HostWindow& window, uint8_t* data, int64_t count, DType dtype, ReduceOp op) {
  const size_t element_bytes = DTypeSize(dtype), bytes = count * element_bytes;
  CAIRN_RETURN_IF_ERROR(window.Begin({WindowOperation::kAllReduce, bytes}));
  std::memcpy(window.slot(window.rank()), data, bytes);
  window.Arrive();
  CAIRN_RETURN_IF_ERROR(window.WaitAllArrived());
  if (bytes <= kOneShotBytes) {
    ReduceInRankOrder(Slots(window, 0), count, dtype, op, data);
    window.Finish();
    return absl::OkStatus();
  }
  const SliceRange mine = SliceOf(count, window.size(), window.rank(), element_bytes);
  ReduceInRankOrder(Slots(window, mine.begin * element_bytes), mine.end - mine.begin, dtype, op,
                    window.result() + mine.begin * element_bytes);
  window.MarkReduced();
  for (int i = 0; i < window.size(); ++i) {
    const int rank = (window.rank() + i) % window.size();  // everybody starts elsewhere
    const SliceRange slice = SliceOf(count, window.size(), rank, element_bytes);
    CAIRN_RETURN_IF_ERROR(window.WaitReduced(rank));
    std::memcpy(data + slice.begin * element_bytes, window.result() + slice.begin * element_bytes,
                (slice.end - slice.begin) * element_bytes);
  }
  window.Finish();
  return absl::OkStatus();
}

}  // namespace

SliceRange SliceOf(int64_t count, int parts, int index, size_t element_bytes) {
  const int64_t per_line = static_cast<int64_t>(kCacheLine / element_bytes);
  const int64_t lines = (count + per_line - 1) / per_line, each = (lines + parts - 1) / parts * per_line;
  return {std::min(each * index, count), std::min(each * (index + 1), count)};
}

absl::Status HostAllReduce(HostWindow& window, void* data, int64_t count, DType dtype, ReduceOp op) {
  uint8_t* bytes = static_cast<uint8_t*>(data);
  const int64_t per_step = static_cast<int64_t>(HostWindow::kSlotBytes / DTypeSize(dtype));
  for (int64_t begin = 0; begin < count; begin += per_step) {
    CAIRN_RETURN_IF_ERROR(
        ReduceStep(window, bytes + begin * DTypeSize(dtype), std::min(per_step, count - begin), dtype, op));
  }
  return absl::OkStatus();
}

absl::Status HostAllGather(HostWindow& window, const uint8_t* in, size_t bytes, uint8_t* out) {
  for (size_t begin = 0; begin < bytes; begin += HostWindow::kSlotBytes) {
    const size_t n = std::min(HostWindow::kSlotBytes, bytes - begin);
    CAIRN_RETURN_IF_ERROR(window.Begin({WindowOperation::kAllGather, n}));
    std::memcpy(window.slot(window.rank()), in + begin, n);
    window.Arrive();
    for (int i = 0; i < window.size(); ++i) {
      const int rank = (window.rank() + i) % window.size();
      if (i > 0) CAIRN_RETURN_IF_ERROR(window.WaitArrived(rank));
      std::memcpy(out + rank * bytes + begin, window.slot(rank), n);
    }
    window.Finish();
  }
  return absl::OkStatus();
}

absl::Status HostGather(HostWindow& window, const uint8_t* in, size_t bytes, absl::Span<uint8_t* const> parts,
                        int root) {
  for (size_t begin = 0; begin < bytes; begin += HostWindow::kSlotBytes) {
    const size_t n = std::min(HostWindow::kSlotBytes, bytes - begin);
    CAIRN_RETURN_IF_ERROR(window.Begin({WindowOperation::kGather, n}));
    if (window.rank() != root) {
      std::memcpy(window.slot(window.rank()), in + begin, n);
      window.Arrive();
    } else {
      std::memmove(parts[root] + begin, in + begin, n);  // callers may gather in place
      for (int rank = 0; rank < window.size(); ++rank) {
        if (rank == root) continue;
        CAIRN_RETURN_IF_ERROR(window.WaitArrived(rank));
        std::memcpy(parts[rank] + begin, window.slot(rank), n);
      }
    }
    window.Finish();
  }
  return absl::OkStatus();
}

absl::Status HostBroadcast(HostWindow& window, WindowOperation::Kind kind, uint8_t* data, size_t bytes, int root) {
  for (size_t begin = 0; begin < bytes; begin += HostWindow::kSlotBytes) {
    const size_t n = std::min(HostWindow::kSlotBytes, bytes - begin);
    CAIRN_RETURN_IF_ERROR(window.Begin({kind, n}));
    if (window.rank() == root) {
      std::memcpy(window.slot(root), data + begin, n);
      window.Arrive();
    } else {
      CAIRN_RETURN_IF_ERROR(window.WaitArrived(root));
      std::memcpy(data + begin, window.slot(root), n);
    }
    window.Finish();
  }
  return absl::OkStatus();
}

}  // namespace cairn
