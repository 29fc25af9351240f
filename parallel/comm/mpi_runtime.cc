#include "parallel/comm/mpi_runtime.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Buffers beyond this many bytes in all are given back when their message has left.
constexpr size_t kKeptBufferBytes = 64 << 20;
constexpr double kFlushSeconds = 5;

// Tests set CAIRN_FAKE_HOSTS=n to run the paths between hosts on one machine: its ranks are dealt to n hosts that share
// nothing. One host otherwise.
absl::StatusOr<int> FakeHosts() {
  const char* text = std::getenv("CAIRN_FAKE_HOSTS");
  if (text == nullptr) return 1;
  int hosts = 0;
  if (!absl::SimpleAtoi(text, &hosts) || hosts < 1) {
    return absl::InvalidArgumentError(absl::StrCat("CAIRN_FAKE_HOSTS=", text, ": expected a positive number"));
  }
  return hosts;
}

std::string ProcessorName() {
  char name[MPI_MAX_PROCESSOR_NAME + 1] = {};
  int length = 0;
  if (MPI_Get_processor_name(name, &length) != MPI_SUCCESS) return "unknown host";
  return std::string(name, length);
}

}  // namespace

absl::Status FromMpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING + 1] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::UnavailableError(absl::StrCat(call, ": ", text));
}

int OutgoingMessages::Acquire(size_t bytes) {
  int best = -1;  // the smallest that fits, else the largest, which grows
  size_t kept = 0;
  for (int i = 0; i < static_cast<int>(buffers_.size()); ++i) {
    kept += buffers_[i].capacity;
    if (buffers_[i].pieces_left > 0) continue;
    const size_t capacity = buffers_[i].capacity, chosen = best < 0 ? 0 : buffers_[best].capacity;
    const bool better = chosen >= bytes ? capacity >= bytes && capacity < chosen : capacity > chosen;
    if (best < 0 || better) best = i;
  }
  if (best < 0) {
    best = static_cast<int>(buffers_.size());
    buffers_.emplace_back();
  }
  if (buffers_[best].capacity < bytes) {
    const size_t capacity = std::max(bytes, size_t{4096});
    buffers_[best].data.reset(new uint8_t[capacity]);
    buffers_[best].capacity = capacity;
  }
  return best;
}

absl::Status OutgoingMessages::Send(MPI_Comm comm, int to, int mpi_tag, const void* header, size_t header_bytes,
                                    const void* data, size_t bytes, size_t piece_bytes) {
  const size_t total = header_bytes + bytes;
  const int index = Acquire(total);
  Buffer& buffer = buffers_[index];
  std::memcpy(buffer.data.get(), header, header_bytes);
  if (bytes > 0) std::memcpy(buffer.data.get() + header_bytes, data, bytes);
  for (size_t begin = 0; begin < total; begin += piece_bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int n = static_cast<int>(std::min(piece_bytes, total - begin));
    CAIRN_RETURN_IF_ERROR(
        FromMpi(MPI_Isend(buffer.data.get() + begin, n, MPI_BYTE, to, mpi_tag, comm, &request), "MPI_Isend"));
    requests_.push_back(request);
    owners_.push_back(index);
    ++buffer.pieces_left;
  }
  Reap();
  return absl::OkStatus();
}

bool OutgoingMessages::Reap() {
  if (requests_.empty()) return true;
  finished_.resize(requests_.size());
  int count = 0;
  MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, finished_.data(), MPI_STATUSES_IGNORE);
  if (count == MPI_UNDEFINED || count == 0) return requests_.empty();
  size_t kept = 0, kept_bytes = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) {
      --buffers_[owners_[i]].pieces_left;
      continue;
    }
    requests_[kept] = requests_[i];
    owners_[kept++] = owners_[i];
  }
  requests_.resize(kept);
  owners_.resize(kept);
  for (Buffer& buffer : buffers_) {
    if (buffer.pieces_left == 0 && kept_bytes + buffer.capacity > kKeptBufferBytes) buffer = {};
    kept_bytes += buffer.capacity;
  }
  return requests_.empty();
}

absl::StatusOr<std::shared_ptr<MpiRuntime>> MpiRuntime::Create(double timeout_seconds) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized || finalized) {
    return absl::FailedPreconditionError("MPI is not initialised: call MPI_Init_thread before MakeMpiWorld");
  }
  auto runtime = std::shared_ptr<MpiRuntime>(new MpiRuntime);
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Comm_rank(MPI_COMM_WORLD, &runtime->world_rank_), "MPI_Comm_rank"));
  CAIRN_ASSIGN_OR_RETURN(const int fake_hosts, FakeHosts());

  MPI_Comm node = MPI_COMM_NULL;
  CAIRN_RETURN_IF_ERROR(
      FromMpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, runtime->world_rank_, MPI_INFO_NULL, &node),
              "MPI_Comm_split_type"));
  int local_rank = 0, local_size = 1;
  MPI_Comm_rank(node, &local_rank);
  MPI_Comm_size(node, &local_size);
  // The lowest world rank names the host; a fake host is named by its own lowest rank.
  const int hosts = std::min(fake_hosts, local_size), fake_host = local_rank * hosts / local_size;
  std::vector<int> world_ranks(local_size);
  const int gathered = MPI_Allgather(&runtime->world_rank_, 1, MPI_INT, world_ranks.data(), 1, MPI_INT, node);
  MPI_Comm_free(&node);
  CAIRN_RETURN_IF_ERROR(FromMpi(gathered, "MPI_Allgather"));
  int first = 0;
  while (first * hosts / local_size != fake_host) ++first;
  runtime->host_id_ = world_ranks[first];
  runtime->host_ = ProcessorName();
  if (hosts > 1) absl::StrAppend(&runtime->host_, "-fake", fake_host);
  runtime->policy_ = {.timeout_seconds = timeout_seconds, .crowded = local_size > sysconf(_SC_NPROCESSORS_ONLN)};
  return runtime;
}

MpiRuntime::~MpiRuntime() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) return;
  Waiter waiter({.timeout_seconds = kFlushSeconds, .crowded = policy_.crowded});
  while (!unflushed_.empty() || !outgoing_.empty()) {
    if (waiter.Pause([this] { Progress(); })) continue;
    std::fprintf(stderr, "cairn: rank %d (host %s): ends while other ranks have not received all it sent\n",
                 world_rank_, host_.c_str());
    return;
  }
}

void MpiRuntime::Progress() {
  outgoing_.Reap();
  if (unflushed_.empty()) return;
  unflushed_.erase(std::remove_if(unflushed_.begin(), unflushed_.end(),
                                  [](const Unflushed& entry) { return entry.mailbox->Flush(); }),
                   unflushed_.end());
}

void MpiRuntime::Flush(std::shared_ptr<SharedMemory> memory, std::shared_ptr<HostMailbox> mailbox) {
  for (const Unflushed& entry : unflushed_) {
    if (entry.mailbox == mailbox) return;
  }
  unflushed_.push_back({std::move(memory), std::move(mailbox)});
}

}  // namespace cairn
