#include "parallel/comm/host_mailbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/core/check.h"

namespace cairn {
namespace {

// Large enough that a descriptor's cost does not show, small enough that the receiver copies out of the shared cache
// while the sender still copies in.
constexpr size_t kPieceBytes = 256 << 10;
constexpr size_t kAlign = 64;

}  // namespace

size_t HostMailbox::BytesFor(int size, size_t arena_bytes) {
  return static_cast<size_t>(size) * size * (sizeof(Ring) + arena_bytes);
}

HostMailbox::HostMailbox(uint8_t* memory, int rank, int size, size_t arena_bytes)
    : memory_(memory),
      rank_(rank),
      size_(size),
      arena_bytes_(arena_bytes),
      piece_bytes_(std::min(kPieceBytes, arena_bytes / 4)),
      lanes_(size) {
  static_assert(std::atomic<uint64_t>::is_always_lock_free, "processes cannot share a lock");
  CAIRN_CHECK(arena_bytes % kAlign == 0 && piece_bytes_ % kAlign == 0 && piece_bytes_ > 0, arena_bytes);
}

HostMailbox::Ring& HostMailbox::ring(int from, int to) const {
  return reinterpret_cast<Ring*>(memory_)[from * size_ + to];
}

uint8_t* HostMailbox::arena(int from, int to) const {
  return memory_ + sizeof(Ring) * size_ * size_ + (static_cast<size_t>(from) * size_ + to) * arena_bytes_;
}

int64_t HostMailbox::Allocate(int to, size_t bytes) {
  Lane& lane = lanes_[to];
  const uint64_t consumed = ring(rank_, to).consumed.load(std::memory_order_acquire);
  while (!lane.in_use.empty() && lane.in_use.front().piece < consumed) lane.in_use.pop_front();
  if (lane.in_use.empty()) lane.head = 0;
  const size_t room = (bytes + kAlign - 1) / kAlign * kAlign;
  // The free space is from head to the end and from the front to the oldest piece, or between the two; head never
  // catches up with the oldest piece, so that equality means empty.
  const size_t oldest = lane.in_use.empty() ? arena_bytes_ + 1 : lane.in_use.front().begin;
  const bool wrapped = !lane.in_use.empty() && lane.head <= oldest;
  size_t begin = lane.head;
  if (wrapped || lane.in_use.empty()) {
    if (begin + room >= oldest) return -1;
  } else if (begin + room > arena_bytes_) {
    if (room >= oldest) return -1;
    begin = 0;
  }
  lane.head = begin + room;
  return static_cast<int64_t>(begin);
}

bool HostMailbox::PostPieces(int to, int tag, const uint8_t* data, size_t* begin, size_t end, uint64_t message_bytes) {
  Ring& out = ring(rank_, to);
  uint64_t posted = out.posted.load(std::memory_order_relaxed);  // ours alone to change
  do {
    if (posted - out.consumed.load(std::memory_order_acquire) == kDescriptors) return false;
    const size_t bytes = std::min(piece_bytes_, end - *begin);
    int64_t offset = 0;
    if (bytes > 0) {
      offset = Allocate(to, bytes);
      if (offset < 0) return false;
      std::memcpy(arena(rank_, to) + offset, data + *begin, bytes);
      lanes_[to].in_use.push_back({posted, static_cast<uint64_t>(offset)});
    }
    out.descriptors[posted % kDescriptors] = {static_cast<uint64_t>(offset), bytes, message_bytes, tag};
    out.posted.store(++posted, std::memory_order_release);
    *begin += bytes;
  } while (*begin < end);
  return true;
}

void HostMailbox::Send(int to, int tag, const void* data, size_t bytes) {
  const uint8_t* source = static_cast<const uint8_t*>(data);
  size_t begin = 0;
  if (lanes_[to].pending.empty() && PostPieces(to, tag, source, &begin, bytes, bytes)) return;
  Pending pending = {tag, std::unique_ptr<uint8_t[]>(new uint8_t[bytes - begin]), 0, bytes - begin, bytes};
  if (begin < bytes) std::memcpy(pending.bytes.get(), source + begin, bytes - begin);
  lanes_[to].pending.push_back(std::move(pending));
  ++num_pending_;
}

bool HostMailbox::Flush() {
  for (int to = 0; to < size_ && num_pending_ > 0; ++to) {
    std::deque<Pending>& pending = lanes_[to].pending;
    while (!pending.empty()) {
      Pending& first = pending.front();
      if (!PostPieces(to, first.tag, first.bytes.get(), &first.begin, first.end, first.message_bytes)) break;
      pending.pop_front();
      --num_pending_;
    }
  }
  return num_pending_ == 0;
}

bool HostMailbox::Front(int from, MessagePiece* piece) const {
  const Ring& in = ring(from, rank_);
  const uint64_t consumed = in.consumed.load(std::memory_order_relaxed);  // ours alone to change
  if (in.posted.load(std::memory_order_acquire) == consumed) return false;
  const Descriptor& descriptor = in.descriptors[consumed % kDescriptors];
  *piece = {from, static_cast<int>(descriptor.tag), descriptor.message_bytes, arena(from, rank_) + descriptor.offset,
            descriptor.bytes};
  return true;
}

void HostMailbox::Pop(int from) {
  Ring& in = ring(from, rank_);
  in.consumed.store(in.consumed.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

}  // namespace cairn
