// Messages travel in pieces, so that a long one needs no buffer of its size and no rendezvous.
#ifndef CAIRN_PARALLEL_COMM_MESSAGE_PIECE_H_
#define CAIRN_PARALLEL_COMM_MESSAGE_PIECE_H_

#include <cstddef>
#include <cstdint>

namespace cairn {

// The next bytes of a message; the pieces of a pair come in order, one message after the other. A message without bytes
// is one empty piece.
struct MessagePiece {
  int source = 0;
  int tag = 0;
  uint64_t message_bytes = 0;  // of the whole message
  const uint8_t* data = nullptr;
  size_t bytes = 0;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MESSAGE_PIECE_H_
