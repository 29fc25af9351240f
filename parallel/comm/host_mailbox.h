// Messages between the ranks of one host, through memory they share. The sender copies in and is done, the receiver
// copies out when it likes: neither waits for the other, and a rank that computes delays nobody (MPI moves a message
// above a few KiB only while both sides call it, unless the kernel lets one process read another's memory).
//
// Per ordered pair of ranks: a ring of piece descriptors, and an arena for the bytes that only the sender allocates
// from. When a pair has nothing under way its arena starts again at the front, which is then still in the caches. What
// does not fit waits in the sender's own memory for a later Flush.
#ifndef CAIRN_PARALLEL_COMM_HOST_MAILBOX_H_
#define CAIRN_PARALLEL_COMM_HOST_MAILBOX_H_

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "parallel/comm/message_piece.h"

namespace cairn {

class HostMailbox {
 public:
  // Of the shared memory for `size` ranks, all zero at first.
  static size_t BytesFor(int size, size_t arena_bytes);
  // `memory` is shared by the ranks and outlives the mailbox.
  HostMailbox(uint8_t* memory, int rank, int size, size_t arena_bytes);

  // Copies, never waits.
  void Send(int to, int tag, const void* data, size_t bytes);
  // Moves on what is still in own memory; true when nothing is left there.
  bool Flush();
  size_t num_pending() const { return num_pending_; }  // messages not yet wholly in shared memory

  // The next piece from a rank, if it has come: stays valid, and stays first, until Pop.
  bool Front(int from, MessagePiece* piece) const;
  void Pop(int from);

 private:
  struct Descriptor {
    uint64_t offset, bytes, message_bytes;
    int64_t tag;
  };
  static constexpr uint64_t kDescriptors = 512;  // per pair
  struct alignas(64) Ring {
    std::atomic<uint64_t> posted;                // pieces, by the sender
    alignas(64) std::atomic<uint64_t> consumed;  // pieces, by the receiver
    alignas(64) Descriptor descriptors[kDescriptors];
  };
  struct Pending {
    int tag;
    std::unique_ptr<uint8_t[]> bytes;
    size_t begin, end;       // still to post
    uint64_t message_bytes;  // of the whole message
  };
  // What the sender knows of one of its arenas.
  struct Lane {
    struct Span {
      uint64_t piece, begin;
    };
    std::deque<Span> in_use;  // in order of posting
    size_t head = 0;          // where the next piece goes
    std::deque<Pending> pending;
  };

  Ring& ring(int from, int to) const;
  uint8_t* arena(int from, int to) const;
  // Space for a piece, or -1; frees what the receiver has read.
  int64_t Allocate(int to, size_t bytes);
  // Posts pieces of data[*begin, end) while there is room.
  bool PostPieces(int to, int tag, const uint8_t* data, size_t* begin, size_t end, uint64_t message_bytes);

  uint8_t* const memory_;
  const int rank_, size_;
  const size_t arena_bytes_, piece_bytes_;
  std::vector<Lane> lanes_;  // by receiver
  size_t num_pending_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_HOST_MAILBOX_H_
