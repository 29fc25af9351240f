#include "parallel/comm/mpi_group.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Room for the messages of one pair of ranks before the sender keeps them to itself: four chunks of 512 tokens of the
// widest hidden states (8192 floats). It costs memory only as far as it is used; the limit over all pairs keeps the
// address space of large groups sane.
constexpr size_t kTensorArenaBytes = 64 << 20, kControlArenaBytes = 4 << 20;
constexpr size_t kAllArenasBytes = size_t{8} << 30, kSmallestArenaBytes = 64 << 10;

size_t ArenaBytes(GroupUse use, int local_size) {
  const size_t pairs = static_cast<size_t>(local_size) * local_size;
  const size_t wanted = use == GroupUse::kTensors ? kTensorArenaBytes : kControlArenaBytes;
  const size_t fair = kAllArenasBytes / pairs / 4096 * 4096;
  return std::max(std::min(wanted, fair), kSmallestArenaBytes);
}

size_t WindowBytes(GroupUse use, int local_size) {
  return use == GroupUse::kTensors ? (HostWindow::BytesFor(local_size) + 4095) / 4096 * 4096 : 0;
}

size_t MemoryBytes(GroupUse use, int local_size) {
  return WindowBytes(use, local_size) + HostMailbox::BytesFor(local_size, ArenaBytes(use, local_size));
}

}  // namespace

HostLayout HostLayout::Of(const std::vector<int>& host_ids) {
  HostLayout layout;
  std::map<int, int> index_of;
  for (int rank = 0; rank < static_cast<int>(host_ids.size()); ++rank) {
    const int host = index_of.emplace(host_ids[rank], layout.num_hosts()).first->second;
    if (host == layout.num_hosts()) layout.ranks.emplace_back();
    layout.ranks[host].push_back(rank);
    layout.host_of.push_back(host);
  }
  return layout;
}

MpiGroup::MpiGroup(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm)
    : runtime_(std::move(runtime)), comm_(comm), link_(runtime_, comm) {}

MpiGroup::~MpiGroup() {
  if (mailbox_ != nullptr && !mailbox_->Flush()) runtime_->Flush(memory_, mailbox_);
  int finalized = 0;
  MPI_Finalized(&finalized);
  // Local in Open MPI; pending sends keep the communicator until they are done.
  MPI_Comm comm = comm_;
  if (!finalized) MPI_Comm_free(&comm);
}

absl::StatusOr<std::unique_ptr<MpiGroup>> MpiGroup::Create(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm,
                                                           GroupUse use) {
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  auto group = std::unique_ptr<MpiGroup>(new MpiGroup(std::move(runtime), comm));
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Comm_rank(comm, &group->rank_), "MPI_Comm_rank"));
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Comm_size(comm, &group->size_), "MPI_Comm_size"));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int> host_ids, group->GatherInts(group->runtime_->host_id()));
  group->layout_ = HostLayout::Of(host_ids);
  CAIRN_RETURN_IF_ERROR(group->ShareHostMemory(use));
  group->FurnishHostMemory(use);
  return group;
}

absl::StatusOr<std::vector<int>> MpiGroup::GatherInts(int mine) const {
  std::vector<int> all(size_);
  CAIRN_RETURN_IF_ERROR(FromMpi(MPI_Allgather(&mine, 1, MPI_INT, all.data(), 1, MPI_INT, comm_), "MPI_Allgather"));
  return all;
}

absl::StatusOr<std::unique_ptr<SharedMemory>> MpiGroup::MapHostMemory(size_t bytes) {
  absl::StatusOr<std::unique_ptr<SharedMemory>> memory = absl::UnavailableError("its host's first rank has none");
  SharedMemory::Address address;
  const int first = local_ranks().front();
  if (rank_ == first) {
    memory = SharedMemory::Create(bytes);
    if (memory.ok()) address = (*memory)->address();
  }
  std::vector<SharedMemory::Address> addresses(size_);
  CAIRN_RETURN_IF_ERROR(
      FromMpi(MPI_Allgather(&address, sizeof(address), MPI_BYTE, addresses.data(), sizeof(address), MPI_BYTE, comm_),
              "MPI_Allgather"));
  if (rank_ != first && addresses[first].fd >= 0) memory = SharedMemory::Attach(addresses[first]);
  return memory;
}

// Where the ranks of a host cannot share memory (containers of their own, say), each becomes a host of its own: slower,
// and right.
absl::Status MpiGroup::ShareHostMemory(GroupUse use) {
  absl::StatusOr<std::unique_ptr<SharedMemory>> memory =
      MapHostMemory(MemoryBytes(use, static_cast<int>(local_ranks().size())));
  CAIRN_ASSIGN_OR_RETURN(std::vector<int> mapped, GatherInts(memory.ok()));
  if (std::find(mapped.begin(), mapped.end(), 0) != mapped.end()) {
    if (!memory.ok()) {
      std::fprintf(stderr,
                   "cairn: rank %d (host %s): cannot share memory with its host's ranks (%s): uses MPI instead\n",
                   runtime_->world_rank(), runtime_->host().c_str(), std::string(memory.status().message()).c_str());
    }
    std::vector<int> host_ids(size_);
    for (int rank = 0; rank < size_; ++rank) {
      const std::vector<int>& host = layout_.ranks[layout_.host_of[rank]];
      const bool shared = std::all_of(host.begin(), host.end(), [&](int other) { return mapped[other] != 0; });
      host_ids[rank] = shared ? layout_.host_of[rank] : size_ + rank;
    }
    layout_ = HostLayout::Of(host_ids);
    if (local_ranks().size() == 1) memory = SharedMemory::Create(MemoryBytes(use, 1));
    CAIRN_ASSIGN_OR_RETURN(mapped, GatherInts(memory.ok()));
    CAIRN_RETURN_IF_ERROR(memory.status());
    if (std::find(mapped.begin(), mapped.end(), 0) != mapped.end()) {
      return absl::ResourceExhaustedError("another rank of the group could not allocate shared memory");
    }
  }
  memory_ = *std::move(memory);
  memory_->CloseDoor();  // all have come in
  return absl::OkStatus();
}

void MpiGroup::FurnishHostMemory(GroupUse use) {
  local_index_.assign(size_, 0);
  for (const std::vector<int>& host : layout_.ranks) {
    for (size_t i = 0; i < host.size(); ++i) local_index_[host[i]] = static_cast<int>(i);
  }
  local_rank_ = local_index(rank_);
  const int local_size = static_cast<int>(local_ranks().size());
  if (use == GroupUse::kTensors) {
    std::vector<std::string> names;
    for (int rank : local_ranks()) names.push_back(absl::StrCat("rank ", rank));
    window_ = std::make_unique<HostWindow>(memory_->data(), local_rank_, local_size, runtime_->policy(),
                                           std::move(names), absl::StrCat("rank ", rank_, " of ", size_),
                                           [runtime = runtime_.get()] { runtime->Progress(); });
  }
  mailbox_ = std::make_shared<HostMailbox>(memory_->data() + WindowBytes(use, local_size), local_rank_, local_size,
                                           ArenaBytes(use, local_size));
}

absl::Status MpiGroup::Send(int to, int tag, const void* data, size_t bytes) {
  if (!is_local(to)) return link_.Send(to, MpiLink::kMessages, tag, data, bytes);
  mailbox_->Send(local_index(to), tag, data, bytes);
  if (mailbox_->num_pending() > 0) runtime_->Flush(memory_, mailbox_);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<MessagePiece>> MpiGroup::Poll(int source) {
  if (!is_local(source)) return link_.Poll(source, MpiLink::kMessages);
  MessagePiece piece;
  if (!mailbox_->Front(local_index(source), &piece)) return std::optional<MessagePiece>();
  piece.source = source;
  return std::optional<MessagePiece>(piece);
}

void MpiGroup::Pop(int source) {
  if (is_local(source)) mailbox_->Pop(local_index(source));
}

absl::StatusOr<std::optional<MessagePiece>> MpiGroup::PollOtherHosts() {
  if (layout_.num_hosts() == 1) return std::optional<MessagePiece>();
  return link_.Poll(MpiLink::kAnySource, MpiLink::kMessages);
}

absl::Status MpiGroup::Late(const char* operation, const std::string& whom, double timeout_seconds) const {
  return absl::DeadlineExceededError(
      absl::StrCat(operation, " on rank ", rank_, " of ", size_, ": waited ", timeout_seconds, " s for ", whom));
}

}  // namespace cairn
