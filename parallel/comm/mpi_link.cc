#include "parallel/comm/mpi_link.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// With its header below 64 KiB, Open MPI's eager limit for TCP.
constexpr size_t kPieceBytes = 48 << 10;

}  // namespace

MpiLink::MpiLink(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm)
    : runtime_(std::move(runtime)), comm_(comm), staging_(new uint8_t[kPieceBytes]) {}

MpiLink::~MpiLink() {
  // After a timeout MPI may still write a piece that began to arrive; the few KiB are the price of leaving.
  if (receive_ != MPI_REQUEST_NULL) (void)staging_.release();
}

absl::Status MpiLink::Send(int to, Stream stream, int tag, const void* data, size_t bytes) {
  const Header header = {bytes, tag};
  return runtime_->outgoing().Send(comm_, to, stream, &header, sizeof(header), data, bytes, kPieceBytes);
}

absl::StatusOr<bool> MpiLink::StartReceive(int source, Stream stream) {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Improbe(source, stream, comm_, &found, &message, &status), "MPI_Improbe"));
  if (!found) return false;
  MPI_Get_count(&status, MPI_BYTE, &receive_bytes_);
  if (receive_bytes_ < 0 || static_cast<size_t>(receive_bytes_) > kPieceBytes) {
    return absl::InternalError(absl::StrCat("rank ", status.MPI_SOURCE, " sent a piece of ", receive_bytes_, " bytes"));
  }
  receive_source_ = status.MPI_SOURCE;
  receive_stream_ = stream;
  CAIRN_RETURN_IF_ERROR(
      FromMpi(MPI_Imrecv(staging_.get(), receive_bytes_, MPI_BYTE, &message, &receive_), "MPI_Imrecv"));
  return true;
}

absl::StatusOr<std::optional<MessagePiece>> MpiLink::Poll(int source, Stream stream) {
  if (receive_ == MPI_REQUEST_NULL) {
    CAIRN_ASSIGN_OR_RETURN(const bool started, StartReceive(source, stream));
    if (!started) return std::optional<MessagePiece>();
  } else if (receive_stream_ != stream || (source != kAnySource && receive_source_ != source)) {
    return absl::FailedPreconditionError("a message is half received: an earlier call on this group timed out");
  }
  int done = 0;
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Test(&receive_, &done, MPI_STATUS_IGNORE), "MPI_Test"));
  if (!done) return std::optional<MessagePiece>();
  CAIRN_ASSIGN_OR_RETURN(const MessagePiece piece, Parse());
  return std::optional<MessagePiece>(piece);
}

absl::StatusOr<MessagePiece> MpiLink::Parse() {
  Expected& expected = expected_[{receive_stream_, receive_source_}];
  const uint8_t* data = staging_.get();
  size_t bytes = receive_bytes_;
  if (expected.bytes == 0) {
    Header header;
    if (bytes < sizeof(header)) {
      return absl::InternalError(absl::StrCat("rank ", receive_source_, " sent a message without its header"));
    }
    std::memcpy(&header, data, sizeof(header));
    data += sizeof(header);
    bytes -= sizeof(header);
    expected = {header.message_bytes, header.message_bytes, static_cast<int>(header.tag)};
  }
  if (bytes > expected.bytes || (bytes == 0 && expected.bytes > 0)) {
    return absl::InternalError(absl::StrCat("rank ", receive_source_, " sent a piece of ", bytes, " bytes where ",
                                            expected.bytes, " were left"));
  }
  expected.bytes -= bytes;
  return MessagePiece{receive_source_, expected.tag, expected.message_bytes, data, bytes};
}

}  // namespace cairn
