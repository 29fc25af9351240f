// NCCL between threads, linked in place of libnccl: the calls that this project makes, on the emulator's streams,
// inside graphs too. Communicators are non-blocking, and their calls are "in progress" until they have been asked
// after, as real ones may be. Stricter than NCCL where NCCL leaves it open: a send waits for its receiver whatever its
// size, operations of a communicator follow one another whatever their streams, and ranks that call different
// operations are told so instead of waiting for ever. Sums are in rank order. Minimum and maximum of floats lose a NaN,
// as NCCL's do.
#include "tests/emulator/fake_nccl.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/emulator/device_memory.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/runtime.h"

namespace fake_nccl {
namespace {

using cuda_emulator::Guard;

struct Operation {
  enum Kind { kAllReduce, kAllGather, kBroadcast, kSend, kRecv };
  Kind kind;
  const void* in;
  void* out;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t reduction;  // of kAllReduce
  int peer;               // of a message; root of kBroadcast

  bool is_collective() const { return kind <= kBroadcast; }
};

// A collective, from its first rank to its last.
struct Round {
  std::vector<std::optional<Operation>> of_rank;
  int arrived = 0;
  bool done = false;
  std::string error;
};

// Half of a message.
struct Posted {
  Operation operation = {};
  bool done = false;
  std::string error;
};

struct Window {
  const char* begin;
  size_t bytes;
};

// What the others of a group know of a rank.
struct Member {
  bool has_joined = false, aborted = false, finalized = false;
  int device = 0, version = 0;
  std::vector<Window> windows;
};

struct Clique {
  explicit Clique(int size) : size(size), members(static_cast<size_t>(size)), entered(static_cast<size_t>(size), 0) {}

  const int size;
  std::vector<Member> members;
  int joined = 0;
  ncclResult_t refused = ncclSuccess;  // the group, when all had come
  std::string why;
  std::vector<uint64_t> entered;  // by rank: collectives
  std::map<uint64_t, std::shared_ptr<Round>> rounds;
  using Pair = std::pair<int, int>;  // source, destination
  std::map<Pair, std::deque<std::shared_ptr<Posted>>> sends, receives;
};

// One call, or one group of calls, while it is at the front of its stream.
struct Execution {
  std::vector<std::shared_ptr<Round>> rounds;
  std::vector<std::shared_ptr<Posted>> messages;
};

// What outlives ncclCommDestroy, for work that is still in a stream.
struct State {
  Member& me() const { return clique->members[static_cast<size_t>(rank)]; }

  std::shared_ptr<Clique> clique;
  int rank = 0;
  int unasked = 0;  // questions to which the last call is still in progress
  std::string last_error;
  std::shared_ptr<Execution> active;
  std::string finished_error;          // of the execution that has just ended
  uint64_t issued = 0, completed = 0;  // calls outside of graphs
};

std::map<std::string, std::shared_ptr<Clique>> cliques;  // by unique id
std::map<int, ncclResult_t> failing;                     // by rank
std::map<void*, void*> allocation_base;                  // of what ncclMemAlloc gave
Counts counts;
double abort_seconds = 0;
int64_t next_id = 1;
thread_local int version = NCCL_VERSION_CODE;
thread_local std::string error_without_communicator;

struct Grouped {
  std::shared_ptr<State> state;
  cudaStream_t stream;
  std::vector<Operation> operations;
};
thread_local int group_depth = 0;
thread_local std::vector<Grouped> grouped;

size_t BytesOf(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

// --- What operations do ---

template <typename T>
T Reduced(T a, T b, ncclRedOp_t reduction) {
  if (reduction == ncclSum) return a + b;
  if constexpr (std::is_same_v<T, float>) return reduction == ncclMin ? std::fmin(a, b) : std::fmax(a, b);
  return reduction == ncclMin ? std::min(a, b) : std::max(a, b);
}

// In rank order; 16-bit types are added as float32 and rounded after each rank.
template <typename T, typename Read, typename Write>
void Reduce(Round& round, const Read& read, const Write& write) {
  const Operation& first = *round.of_rank[0];
  std::vector<T> sums(first.count);
  for (size_t rank = 0; rank < round.of_rank.size(); ++rank) {
    const T* in = static_cast<const T*>(round.of_rank[rank]->in);
    for (size_t i = 0; i < first.count; ++i) {
      sums[i] = rank == 0 ? in[i] : write(Reduced(read(sums[i]), read(in[i]), first.reduction));
    }
  }
  for (const auto& operation : round.of_rank) std::memcpy(operation->out, sums.data(), sums.size() * sizeof(T));
}

std::string RunAllReduce(Round& round) {
  const auto same = [](auto value) { return value; };
  switch (round.of_rank[0]->type) {
    case ncclFloat32:
      return Reduce<float>(round, same, same), "";
    case ncclInt64:
      return Reduce<int64_t>(round, same, same), "";
    case ncclInt32:
      return Reduce<int32_t>(round, same, same), "";
    case ncclBfloat16:
      return Reduce<__nv_bfloat16>(
                 round, [](__nv_bfloat16 x) { return __bfloat162float(x); },
                 [](float x) { return __float2bfloat16(x); }),
             "";
    case ncclFloat16:
      return Reduce<__half>(
                 round, [](__half x) { return __half2float(x); }, [](float x) { return __float2half(x); }),
             "";
    default:
      return "fake NCCL: a sum of a type that it does not know";
  }
}

void RunAllGather(Round& round) {
  const size_t bytes = round.of_rank[0]->count * BytesOf(round.of_rank[0]->type);
  std::vector<char> all;
  for (const auto& operation : round.of_rank) {
    const char* in = static_cast<const char*>(operation->in);
    all.insert(all.end(), in, in + bytes);
  }
  for (const auto& operation : round.of_rank) std::memcpy(operation->out, all.data(), all.size());
}

void RunBroadcast(Round& round) {
  const Operation& root = *round.of_rank[static_cast<size_t>(round.of_rank[0]->peer)];
  for (const auto& operation : round.of_rank) {
    if (operation->out != root.in) std::memmove(operation->out, root.in, root.count * BytesOf(root.type));
  }
}

// Place of the bytes in a window that the rank has registered: (its number, offset).
std::optional<std::pair<size_t, size_t>> PlaceIn(const std::vector<Window>& windows, const void* data, size_t bytes) {
  const char* begin = static_cast<const char*>(data);
  for (size_t i = 0; i < windows.size(); ++i) {
    const Window& window = windows[i];
    if (begin >= window.begin && begin + bytes <= window.begin + window.bytes) {
      return std::make_pair(i, static_cast<size_t>(begin - window.begin));
    }
  }
  return std::nullopt;
}

std::string CountReduction(const Clique& clique, const Round& round) {
  ++counts.reductions;
  bool symmetric = true;
  const Operation& first = *round.of_rank[0];
  const auto place = PlaceIn(clique.members[0].windows, first.out, first.count * BytesOf(first.type));
  for (int rank = 0; rank < clique.size; ++rank) {
    const Operation& mine = *round.of_rank[static_cast<size_t>(rank)];
    const auto other =
        PlaceIn(clique.members[static_cast<size_t>(rank)].windows, mine.out, mine.count * BytesOf(mine.type));
    symmetric = symmetric && other.has_value();
    if (place.has_value() && other.has_value() && place != other) {
      return "fake NCCL: the ranks reduce different places of their windows";
    }
  }
  if (symmetric) ++counts.symmetric_reductions;
  return "";
}

std::string Run(const Clique& clique, Round& round) {
  const Operation& first = *round.of_rank[0];
  for (const auto& other : round.of_rank) {
    if (other->kind != first.kind || other->count != first.count || other->type != first.type ||
        other->peer != first.peer || other->reduction != first.reduction) {
      return "fake NCCL: the ranks of a group called different collectives";
    }
  }
  const cuda_emulator::DeviceAccess access;
  switch (first.kind) {
    case Operation::kAllReduce:
      if (std::string error = CountReduction(clique, round); !error.empty()) return error;
      return RunAllReduce(round);
    case Operation::kAllGather:
      return RunAllGather(round), "";
    default:
      return RunBroadcast(round), "";
  }
}

void Match(Clique& clique, const Clique::Pair& pair) {
  auto &sends = clique.sends[pair], &receives = clique.receives[pair];
  while (!sends.empty() && !receives.empty()) {
    Posted &send = *sends.front(), &receive = *receives.front();
    const size_t sent = send.operation.count * BytesOf(send.operation.type);
    if (sent != receive.operation.count * BytesOf(receive.operation.type)) {
      send.error = receive.error = "fake NCCL: a message of another size than its receiver expects";
    } else {
      const cuda_emulator::DeviceAccess access;
      std::memmove(receive.operation.out, send.operation.in, sent);
    }
    send.done = receive.done = true;
    sends.pop_front();
    receives.pop_front();
  }
}

std::shared_ptr<Execution> Begin(State& state, const std::vector<Operation>& operations) {
  Clique& clique = *state.clique;
  auto execution = std::make_shared<Execution>();
  for (const Operation& operation : operations) {
    if (operation.is_collective()) {
      const uint64_t number = clique.entered[static_cast<size_t>(state.rank)]++;
      std::shared_ptr<Round>& round = clique.rounds[number];
      if (round == nullptr) {
        round = std::make_shared<Round>();
        round->of_rank.resize(static_cast<size_t>(clique.size));
      }
      round->of_rank[static_cast<size_t>(state.rank)] = operation;
      execution->rounds.push_back(round);
      if (++round->arrived < clique.size) continue;
      round->error = Run(clique, *round);
      round->done = true;
      clique.rounds.erase(number);
      continue;
    }
    auto posted = std::make_shared<Posted>();
    posted->operation = operation;
    const bool sends = operation.kind == Operation::kSend;
    const Clique::Pair pair =
        sends ? Clique::Pair(state.rank, operation.peer) : Clique::Pair(operation.peer, state.rank);
    (sends ? clique.sends : clique.receives)[pair].push_back(posted);
    execution->messages.push_back(posted);
    Match(clique, pair);
  }
  return execution;
}

bool IsDone(const Execution& execution) {
  const auto done = [](const auto& part) { return part->done; };
  return std::all_of(execution.rounds.begin(), execution.rounds.end(), done) &&
         std::all_of(execution.messages.begin(), execution.messages.end(), done);
}

std::string ErrorOf(const Execution& execution) {
  for (const auto& round : execution.rounds) {
    if (!round->error.empty()) return round->error;
  }
  for (const auto& message : execution.messages) {
    if (!message->error.empty()) return message->error;
  }
  return "";
}

// --- Calls ---

ncclResult_t Refuse(State& state, std::string why, ncclResult_t result = ncclInvalidArgument) {
  state.last_error = std::move(why);
  return result;
}

ncclResult_t AsyncState(State& state) {
  const Clique& clique = *state.clique;
  if (const auto failed = failing.find(state.rank); failed != failing.end()) {
    state.last_error = "fake NCCL: a failure that a test asked for";
    return failed->second;
  }
  if (clique.joined < clique.size) return ncclInProgress;
  if (clique.refused != ncclSuccess) {
    state.last_error = clique.why;
    return clique.refused;
  }
  for (const Member& member : clique.members) {
    if (member.aborted) continue;
    if (member.windows.size() < state.me().windows.size()) return ncclInProgress;
    if (state.me().finalized && !member.finalized) return ncclInProgress;
  }
  if (state.unasked == 0) return ncclSuccess;
  --state.unasked;
  return ncclInProgress;
}

// A call may begin: nothing that was called before is still in progress.
bool MayCall(State& state) {
  if (state.me().aborted || state.clique->joined < state.clique->size || state.unasked > 0) {
    state.last_error = "fake NCCL: a call while the one before is in progress";
    return false;
  }
  return true;
}

void Enqueue(const std::shared_ptr<State>& state, cudaStream_t stream, std::vector<Operation> operations) {
  const uint64_t ticket = cuda_emulator::IsCapturing(stream) ? 0 : ++state->issued;
  auto ready = [state, operations = std::move(operations), ticket, execution = std::shared_ptr<Execution>()]() mutable {
    if (state->me().aborted) return true;
    if (failing.count(state->rank) > 0) return false;
    if (execution == nullptr) {
      if (state->active != nullptr || (ticket > 0 && ticket != state->completed + 1)) return false;
      state->active = execution = Begin(*state, operations);
    }
    if (!IsDone(*execution)) return false;
    state->finished_error = ErrorOf(*execution);
    state->active = nullptr;
    if (ticket > 0) ++state->completed;
    return true;
  };
  cuda_emulator::EnqueueWhenReady(stream, std::move(ready),
                                  [state] { return std::exchange(state->finished_error, ""); });
}

bool IsThere(const void* data, const Operation& operation, size_t times = 1) {
  const size_t bytes = operation.count * BytesOf(operation.type) * times;
  return bytes == 0 || cuda_emulator::IsAllocated(data, bytes);
}

// Once all have come: what NCCL refuses then.
void CheckClique(Clique& clique) {
  std::map<int, int> rank_of_device;
  for (int rank = 0; rank < clique.size; ++rank) {
    const Member& member = clique.members[static_cast<size_t>(rank)];
    if (member.version != clique.members[0].version) {
      clique.refused = ncclInvalidUsage;
      clique.why = "fake NCCL: mismatched NCCL versions";
    }
    const bool may_share = member.version >= NCCL_VERSION(2, 30, 3) && std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    const auto [other, is_new] = rank_of_device.emplace(member.device, rank);
    if (!is_new && !may_share) {
      clique.refused = ncclInvalidUsage;
      clique.why =
          "Duplicate GPU detected : rank " + std::to_string(other->second) + " and rank " + std::to_string(rank);
    }
  }
}

}  // namespace

void Reset() {
  const Guard guard;
  cliques.clear();
  failing.clear();
  counts = {};
  abort_seconds = 0;
  version = NCCL_VERSION_CODE;
}

void SetVersion(int code) { version = code; }

void FailRank(int rank, ncclResult_t error) {
  const Guard guard;
  failing[rank] = error;
}

void SetAbortSeconds(double seconds) {
  const Guard guard;
  abort_seconds = seconds;
}

Counts Count() {
  const Guard guard;
  return counts;
}

}  // namespace fake_nccl

struct ncclComm {
  std::shared_ptr<fake_nccl::State> state;
};

namespace fake_nccl {
namespace {

ncclResult_t Call(ncclComm_t comm, cudaStream_t stream, const Operation& operation) {
  const Guard guard;
  State& state = *comm->state;
  if (!MayCall(state)) return ncclInvalidArgument;
  if (cuda_emulator::CurrentDevice() != state.me().device) {
    return Refuse(state, "fake NCCL: called on another device than the communicator's");
  }
  const size_t times = operation.kind == Operation::kAllGather ? static_cast<size_t>(state.clique->size) : 1;
  const bool reads =
      operation.kind != Operation::kRecv && (operation.kind != Operation::kBroadcast || operation.peer == state.rank);
  if ((reads && !IsThere(operation.in, operation)) ||
      (operation.kind != Operation::kSend && !IsThere(operation.out, operation, times))) {
    return Refuse(state, "fake NCCL: an operand is not in device memory, in full");
  }
  if (operation.peer < 0 || operation.peer >= state.clique->size) return Refuse(state, "fake NCCL: no such rank");
  if (group_depth == 0) {
    if (!operation.is_collective() && operation.peer == state.rank) {
      return Refuse(state, "fake NCCL: a message to oneself outside of a group", ncclInvalidUsage);
    }
    Enqueue(comm->state, stream, {operation});
    state.unasked = 1;
    return ncclInProgress;
  }
  for (Grouped& group : grouped) {
    if (group.state != comm->state || group.stream != stream) continue;
    group.operations.push_back(operation);
    return ncclSuccess;
  }
  grouped.push_back({comm->state, stream, {operation}});
  return ncclSuccess;
}

}  // namespace
}  // namespace fake_nccl

using namespace fake_nccl;  // NOLINT: the functions below are the C interface of the code above

extern "C" {

ncclResult_t ncclGetVersion(int* code) { return *code = version, ncclSuccess; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Guard guard;
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "process %d group %lld", static_cast<int>(getpid()),
                static_cast<long long>(next_id++));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  const Guard guard;
  if (config == nullptr || config->blocking != 0 || config->magic != 0xcafebeef) return ncclInvalidArgument;
  if (std::string(id.internal).rfind("process " + std::to_string(getpid()) + " ", 0) != 0) {
    // Nobody would ever come.
    error_without_communicator = "the fake NCCL is one of threads: processes are without NCCL";
    return ncclSystemError;
  }
  std::shared_ptr<Clique>& clique = cliques[id.internal];
  if (clique == nullptr) clique = std::make_shared<Clique>(size);
  if (size != clique->size || rank < 0 || rank >= size || clique->members[static_cast<size_t>(rank)].has_joined) {
    return ncclInvalidArgument;
  }
  auto state = std::make_shared<State>();
  state->clique = clique;
  state->rank = rank;
  Member& me = state->me();
  me.has_joined = true;
  me.device = cuda_emulator::CurrentDevice();
  me.version = version;
  ++counts.communicators;
  if (++clique->joined == size) {
    CheckClique(*clique);
    cliques.erase(id.internal);
  }
  *comm = new ncclComm{std::move(state)};
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const Guard guard;
  return *error = AsyncState(*comm->state), ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Guard guard;
  if (!MayCall(*comm->state)) return ncclInvalidArgument;
  comm->state->me().finalized = true;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Guard guard;
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  double seconds = 0;
  {
    const Guard guard;
    comm->state->me().aborted = true;
    comm->state->active = nullptr;
    ++counts.aborted;
    seconds = abort_seconds;
    delete comm;
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "error";
  }
}

const char* ncclGetLastError(ncclComm_t comm) {
  return comm == nullptr ? error_without_communicator.c_str() : comm->state->last_error.c_str();
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t reduction,
                           ncclComm_t comm, cudaStream_t stream) {
  return Call(comm, stream, {Operation::kAllReduce, in, out, count, type, reduction, 0});
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return Call(comm, stream, {Operation::kAllGather, in, out, count, type, ncclSum, 0});
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return Call(comm, stream, {Operation::kBroadcast, in, out, count, type, ncclSum, root});
}

ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Call(comm, stream, {Operation::kSend, in, nullptr, count, type, ncclSum, peer});
}

ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return Call(comm, stream, {Operation::kRecv, nullptr, out, count, type, ncclSum, peer});
}

ncclResult_t ncclGroupStart() {
  ++group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Guard guard;
  if (group_depth == 0) return ncclInvalidUsage;
  if (--group_depth > 0) return ncclSuccess;
  for (Grouped& group : std::exchange(grouped, {})) {
    group.state->unasked = 1;
    Enqueue(group.state, group.stream, std::move(group.operations));
  }
  return ncclInProgress;
}

ncclResult_t ncclMemAlloc(void** memory, size_t bytes) {
  char* base = nullptr;
  if (cudaMalloc(reinterpret_cast<void**>(&base), bytes + NCCL_WIN_REQUIRED_ALIGNMENT) != cudaSuccess) {
    return ncclUnhandledCudaError;
  }
  const Guard guard;
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(base) + NCCL_WIN_REQUIRED_ALIGNMENT - 1) /
                            NCCL_WIN_REQUIRED_ALIGNMENT * NCCL_WIN_REQUIRED_ALIGNMENT;
  *memory = reinterpret_cast<void*>(aligned);
  allocation_base[*memory] = base;
  return ncclSuccess;
}

ncclResult_t ncclMemFree(void* memory) {
  const Guard guard;
  const auto found = allocation_base.find(memory);
  if (found == allocation_base.end()) return ncclInvalidArgument;
  void* base = found->second;
  allocation_base.erase(found);
  return cudaFree(base) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void* memory, size_t bytes, ncclWindow_t* window, int flags) {
  const Guard guard;
  State& state = *comm->state;
  if (!MayCall(state)) return ncclInvalidArgument;
  if (state.me().version < NCCL_VERSION(2, 27, 0) || flags != NCCL_WIN_COLL_SYMMETRIC ||
      allocation_base.count(memory) == 0) {
    return Refuse(state, "fake NCCL: no window of this version, with these flags, or of this memory");
  }
  state.me().windows.push_back({static_cast<const char*>(memory), bytes});
  state.unasked = 1;
  *window = reinterpret_cast<ncclWindow_t>(state.me().windows.size());
  ++counts.windows;
  return ncclInProgress;
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
  const Guard guard;
  const size_t number = reinterpret_cast<size_t>(window);
  if (number == 0 || number > comm->state->me().windows.size()) return ncclInvalidArgument;
  comm->state->me().windows[number - 1].bytes = 0;
  return ncclSuccess;
}

}  // extern "C"
