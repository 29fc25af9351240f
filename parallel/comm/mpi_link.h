// Messages between ranks that share no memory, in pieces that MPI sends at once.
//
// A message above MPI's eager limit waits for the receiver and then needs the sender to call MPI again: a stage that
// computes in between would stall the next one. Pieces below the limit of the TCP transport (64 KiB) go straight into
// the socket and are buffered by the receiving side.
#ifndef CAIRN_PARALLEL_COMM_MPI_LINK_H_
#define CAIRN_PARALLEL_COMM_MPI_LINK_H_

#include <mpi.h>

#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "parallel/comm/message_piece.h"
#include "parallel/comm/mpi_runtime.h"

namespace cairn {

class MpiLink {
 public:
  // Separate orders of messages between two ranks.
  enum Stream : int { kMessages = 1, kCollectives = 2 };
  static constexpr int kAnySource = MPI_ANY_SOURCE;

  MpiLink(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm);
  ~MpiLink();

  // Copies, never waits.
  absl::Status Send(int to, Stream stream, int tag, const void* data, size_t bytes);
  // The next piece from a rank (or kAnySource), if it has come. Its bytes are valid until the next Poll. Once a piece
  // has begun to arrive for one source and stream it must be polled for until it is there.
  absl::StatusOr<std::optional<MessagePiece>> Poll(int source, Stream stream);

 private:
  struct Header {
    uint64_t message_bytes;
    int64_t tag;
  };
  struct Expected {  // what is left of the message under way
    uint64_t bytes = 0, message_bytes = 0;
    int tag = 0;
  };

  absl::StatusOr<bool> StartReceive(int source, Stream stream);
  absl::StatusOr<MessagePiece> Parse();

  const std::shared_ptr<MpiRuntime> runtime_;
  const MPI_Comm comm_;
  std::unique_ptr<uint8_t[]> staging_;
  MPI_Request receive_ = MPI_REQUEST_NULL;
  int receive_source_ = 0, receive_bytes_ = 0;
  Stream receive_stream_ = kMessages;
  std::map<std::pair<int, int>, Expected> expected_;  // by (stream, source)
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MPI_LINK_H_
