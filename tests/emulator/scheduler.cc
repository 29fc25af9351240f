#include "tests/emulator/scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_emulator.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/fiber.h"
#include "tests/emulator/race_check.h"
#include "tests/emulator/shared_memory.h"

namespace cuda_emulator {
namespace {

constexpr int kWarp = 32;

struct AsyncCopy {
  char* destination;
  const char* source;
  int bytes, source_bytes;
  bool landed;
};

struct Thread {
  enum class State { kReady, kAtBarrier, kInWarp, kReturned };

  Fiber fiber;
  State state = State::kReady;
  int number = 0;
  uint3 index = {};
  // Where it waits.
  const char* file = "";
  int line = 0;
  // In a warp collective.
  const char* name = "";
  unsigned mask = 0;
  void* arguments = nullptr;
  WarpFunction function = nullptr;
  // At a barrier.
  Vote vote = Vote::kNone;
  int predicate = 0, vote_result = 0;
  // For the race check: how many of each it has passed.
  uint32_t barriers = 0, warp_operations = 0;

  std::vector<AsyncCopy> open_copies;
  std::deque<std::vector<AsyncCopy>> copy_groups;  // committed, oldest first
};

// The kernel that runs. One at a time.
struct Kernel {
  const Grid* grid = nullptr;
  std::vector<std::unique_ptr<Thread>> pool;  // kept from kernel to kernel, with their stacks
  int num_threads = 0;
  Thread* current = nullptr;
  int at_barrier = 0, returned = 0;
  std::vector<unsigned> arrived;  // by warp: lanes in a collective
  std::string error;
  std::mt19937_64 random;
};

Schedule schedule;
Kernel kernel;

std::string Text(const uint3& v) {
  char text[64];
  std::snprintf(text, sizeof(text), "(%u, %u, %u)", v.x, v.y, v.z);
  return text;
}

std::string Place(const char* file, int line) { return std::string(file) + ":" + std::to_string(line); }

std::string WhatItDoes(const Thread& thread) {
  char mask[16];
  std::snprintf(mask, sizeof(mask), "%08x", thread.mask);
  switch (thread.state) {
    case Thread::State::kReturned:
      return "returned";
    case Thread::State::kAtBarrier:
      return "at the barrier " + Place(thread.file, thread.line);
    case Thread::State::kInWarp:
      return std::string("in ") + thread.name + " of lanes " + mask + " at " + Place(thread.file, thread.line);
    case Thread::State::kReady:
      break;
  }
  return "ready to run";
}

// Neighbouring threads that do the same on one line.
std::string WhatAllDo() {
  std::string text;
  for (int begin = 0; begin < kernel.num_threads;) {
    const std::string what = WhatItDoes(*kernel.pool[begin]);
    int end = begin + 1;
    while (end < kernel.num_threads && WhatItDoes(*kernel.pool[end]) == what) ++end;
    text += "\n  threads " + std::to_string(begin) + ".." + std::to_string(end - 1) + ": " + what;
    begin = end;
  }
  return text;
}

// Keeps the first error.
__attribute__((noinline)) void SetError(const std::string& what, const char* file, int line) {
  if (!kernel.error.empty()) return;
  kernel.error = "kernel " + kernel.grid->kernel + ", block " + Text(blockIdx);
  if (kernel.current != nullptr) kernel.error += ", thread " + Text(kernel.current->index);
  if (file != nullptr) kernel.error += ", " + Place(file, line);
  kernel.error += ": " + what;
}

// Unwinds a thread that failed to its entry.
struct ThreadFailed {};

void ThreadEntry() {
  Fiber::Entered();
  try {
    kernel.grid->thread_body();
  } catch (const ThreadFailed&) {
  }
  Thread& thread = *kernel.current;
  if (!thread.open_copies.empty()) {
    SetError("returns with cp.async copies that were never committed", nullptr, 0);
  } else if (std::any_of(thread.copy_groups.begin(), thread.copy_groups.end(),
                         [](const auto& g) { return !g.empty(); })) {
    SetError("returns with cp.async copies that were never waited for", nullptr, 0);
  }
  thread.state = Thread::State::kReturned;
  thread.fiber.Leave();
  __builtin_trap();
}

void Land(AsyncCopy& copy) {
  if (copy.landed) return;
  std::memcpy(copy.destination, copy.source, copy.source_bytes);
  std::memset(copy.destination + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  race::Access(copy.destination, copy.bytes, /*is_write=*/true, /*is_atomic=*/false, __builtin_return_address(0));
  copy.landed = true;
}

void Run(Thread& thread) {
  kernel.current = &thread;
  threadIdx = thread.index;
  race::SetThread(thread.number, thread.barriers, thread.warp_operations);
  thread.fiber.Resume();
  kernel.current = nullptr;
}

void StartThreads() {
  const dim3 shape = kernel.grid->threads;
  kernel.num_threads = static_cast<int>(shape.x * shape.y * shape.z);
  while (static_cast<int>(kernel.pool.size()) < kernel.num_threads) {
    kernel.pool.push_back(std::make_unique<Thread>());
  }
  for (int i = 0; i < kernel.num_threads; ++i) {
    Thread& thread = *kernel.pool[i];
    thread.state = Thread::State::kReady;
    thread.number = i;
    const unsigned number = static_cast<unsigned>(i);
    thread.index = {number % shape.x, number / shape.x % shape.y, number / (shape.x * shape.y)};
    thread.barriers = thread.warp_operations = 0;
    thread.open_copies.clear();
    thread.copy_groups.clear();
    thread.fiber.Start(&ThreadEntry);
  }
  kernel.at_barrier = kernel.returned = 0;
  kernel.arrived.assign((kernel.num_threads + kWarp - 1) / kWarp, 0);
}

// An order of 0 .. n - 1 by the schedule; random ones are drawn anew each time.
std::vector<int> OrderOf(int n) {
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (schedule.order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (schedule.order == Order::kRandom) std::shuffle(order.begin(), order.end(), kernel.random);
  return order;
}

// Runs the warp's ready lanes until none is ready. False if none was.
bool RunWarp(int warp) {
  bool ran = false;
  for (bool more = true; more;) {
    more = false;
    for (int lane : OrderOf(kWarp)) {
      const int number = warp * kWarp + lane;
      if (number >= kernel.num_threads || kernel.pool[number]->state != Thread::State::kReady) continue;
      Run(*kernel.pool[number]);
      if (!kernel.error.empty()) return true;
      if (kernel.pool[number]->state == Thread::State::kReturned) ++kernel.returned;
      more = ran = true;
    }
    if (schedule.order == Order::kRandom && kernel.random() % 16 == 0) break;
  }
  return ran;
}

void RunBlock() {
  StartThreads();
  const int warps = static_cast<int>(kernel.arrived.size());
  while (kernel.returned < kernel.num_threads) {
    bool ran = false;
    for (int warp : OrderOf(warps)) {
      ran |= RunWarp(warp);
      if (!kernel.error.empty()) return;
    }
    if (!ran) {
      SetError("threads wait for each other (a divergent barrier or warp operation):" + WhatAllDo(), nullptr, 0);
      return;
    }
  }
}

}  // namespace

void SetSchedule(const Schedule& next) { schedule = next; }

std::string RunGrid(const Grid& grid) {
  kernel.grid = &grid;
  kernel.error.clear();
  kernel.random.seed(schedule.seed);
  gridDim = grid.blocks;
  blockDim = grid.threads;
  race::BeginKernel(grid.kernel.c_str());
  const int blocks = static_cast<int>(grid.blocks.x * grid.blocks.y * grid.blocks.z);
  for (int number : OrderOf(blocks)) {
    const unsigned n = static_cast<unsigned>(number);
    blockIdx = {n % grid.blocks.x, n / grid.blocks.x % grid.blocks.y, n / (grid.blocks.x * grid.blocks.y)};
    ResetShared(grid.dynamic_shared_bytes);
    race::BeginBlock(n);
    RunBlock();
    if (!kernel.error.empty()) break;
  }
  race::EndKernel();
  if (kernel.error.empty()) kernel.error = race::FirstFinding();
  return kernel.error;
}

void Fail(const std::string& what, const char* file, int line) {
  SetError(what, file, line);
  throw ThreadFailed();
}

int LaneId() { return kernel.current->number % kWarp; }

void* SharedArray(const void* key, size_t bytes, size_t alignment) {
  void* array = StaticShared(key, bytes, alignment);
  if (array == nullptr) {
    Fail("shared memory over the limit: " + std::to_string(kMaxStaticShared) + " bytes of static arrays, " +
             std::to_string(kMaxShared) + " bytes with the dynamic part",
         nullptr, 0);
  }
  return array;
}

void* DynamicShared(size_t alignment) {
  if (128 % alignment != 0) Fail("dynamic shared memory is aligned to 128 bytes, no better", nullptr, 0);
  return DynamicSharedBegin();
}

int BlockBarrier(Vote vote, int predicate, const char* file, int line) {
  Thread& own = *kernel.current;
  own.state = Thread::State::kAtBarrier;
  own.file = file;
  own.line = line;
  own.vote = vote;
  own.predicate = predicate;
  if (++kernel.at_barrier + kernel.returned == kernel.num_threads) {
    if (kernel.returned > 0) {
      Fail(std::to_string(kernel.returned) + " threads returned before this barrier:" + WhatAllDo(), file, line);
    }
    int count = 0;
    for (int i = 0; i < kernel.num_threads; ++i) {
      const Thread& thread = *kernel.pool[i];
      if (thread.line != line || std::strcmp(thread.file, file) != 0 || thread.vote != vote) {
        Fail("threads meet at different barriers:" + WhatAllDo(), file, line);
      }
      count += thread.predicate != 0;
    }
    const int result = vote == Vote::kAnd ? count == kernel.num_threads : vote == Vote::kOr ? count > 0 : count;
    for (int i = 0; i < kernel.num_threads; ++i) {
      kernel.pool[i]->state = Thread::State::kReady;
      kernel.pool[i]->vote_result = result;
      ++kernel.pool[i]->barriers;
    }
    kernel.at_barrier = 0;
  }
  own.fiber.Yield();
  return own.vote_result;
}

void WarpCollective(const char* name, unsigned mask, void* arguments, WarpFunction function, const char* file,
                    int line) {
  Thread& own = *kernel.current;
  const int warp = own.number / kWarp, lane = own.number % kWarp;
  const int lanes_here = std::min(kWarp, kernel.num_threads - warp * kWarp);
  if (!(mask >> lane & 1)) Fail(std::string(name) + ": the lane is not in its own mask", file, line);
  if (lanes_here < kWarp && mask >> lanes_here != 0) {
    Fail(std::string(name) + ": the mask names lanes that this block does not have", file, line);
  }
  own.state = Thread::State::kInWarp;
  own.file = file;
  own.line = line;
  own.name = name;
  own.mask = mask;
  own.arguments = arguments;
  own.function = function;
  unsigned& arrived = kernel.arrived[warp];
  arrived |= 1u << lane;
  if ((arrived & mask) == mask) {
    void* lanes[kWarp] = {};
    uint32_t operations = 0;
    for (int i = 0; i < kWarp; ++i) {
      if (!(mask >> i & 1)) continue;
      const Thread& thread = *kernel.pool[warp * kWarp + i];
      if (thread.function != function || thread.mask != mask) {
        Fail("lanes of one mask meet in different warp operations:" + WhatAllDo(), file, line);
      }
      lanes[i] = thread.arguments;
      operations = std::max(operations, thread.warp_operations);
    }
    if (function != nullptr) function(lanes, mask);
    for (int i = 0; i < kWarp; ++i) {
      if (!(mask >> i & 1)) continue;
      Thread& thread = *kernel.pool[warp * kWarp + i];
      thread.state = Thread::State::kReady;
      thread.warp_operations = operations + 1;
    }
    arrived &= ~mask;
  }
  own.fiber.Yield();
}

void NoteAccess(const void* address, size_t bytes, bool is_write, int lane) {
  const Thread& own = *kernel.current;
  const Thread& thread = *kernel.pool[own.number / kWarp * kWarp + lane];
  race::SetThread(thread.number, thread.barriers, thread.warp_operations);
  race::Access(address, bytes, is_write, /*is_atomic=*/false, __builtin_return_address(0));
  race::SetThread(own.number, own.barriers, own.warp_operations);
}

void ShuffleLanes(void* const lanes[32], unsigned mask) {
  for (int i = 0; i < kWarp; ++i) {
    if (!(mask >> i & 1)) continue;
    ShuffleArguments& own = *static_cast<ShuffleArguments*>(lanes[i]);
    if (own.source < 0 || own.source >= kWarp || !(mask >> own.source & 1)) {
      Fail("shfl: lane " + std::to_string(i) + " reads lane " + std::to_string(own.source) + ", not in the mask",
           own.file, own.line);
    }
    own.result = static_cast<const ShuffleArguments*>(lanes[own.source])->value;
  }
}

void BallotLanes(void* const lanes[32], unsigned mask) {
  unsigned ballot = 0;
  for (int i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) && static_cast<VoteArguments*>(lanes[i])->value != 0) ballot |= 1u << i;
  }
  for (int i = 0; i < kWarp; ++i) {
    if (mask >> i & 1) static_cast<VoteArguments*>(lanes[i])->result = ballot;
  }
}

void MatchLanes(void* const lanes[32], unsigned mask) {
  for (int i = 0; i < kWarp; ++i) {
    if (!(mask >> i & 1)) continue;
    VoteArguments& own = *static_cast<VoteArguments*>(lanes[i]);
    own.result = 0;
    for (int j = 0; j < kWarp; ++j) {
      if ((mask >> j & 1) && static_cast<VoteArguments*>(lanes[j])->value == own.value) own.result |= 1u << j;
    }
  }
}

void CopyAsync(void* destination, const void* source, int bytes, int source_bytes, const char* file, int line) {
  const size_t unit = static_cast<size_t>(bytes);
  if (reinterpret_cast<uintptr_t>(destination) % unit != 0) Fail("cp.async: misaligned destination", file, line);
  if (reinterpret_cast<uintptr_t>(source) % unit != 0) Fail("cp.async: misaligned source", file, line);
  if (!IsShared(destination, unit)) Fail("cp.async: the destination is not in shared memory", file, line);
  Thread& own = *kernel.current;
  // The source is read now, for the sanitizers too; the destination is written at some time until the wait.
  static char sink[16];
  std::memcpy(sink, source, static_cast<size_t>(source_bytes));
  race::Access(source, static_cast<size_t>(source_bytes), false, false, __builtin_return_address(0));
  race::Access(destination, unit, true, false, __builtin_return_address(0));
  own.open_copies.push_back(
      {static_cast<char*>(destination), static_cast<const char*>(source), bytes, source_bytes, false});
  // Late in one schedule, at once in the next, by the toss of a coin in the others.
  const bool at_once = schedule.order == Order::kReverse || (schedule.order == Order::kRandom && kernel.random() % 2);
  if (at_once) Land(own.open_copies.back());
}

void CopyAsyncCommit() {
  kernel.current->copy_groups.push_back(std::move(kernel.current->open_copies));
  kernel.current->open_copies.clear();
}

void CopyAsyncWait(int pending_groups) {
  auto& groups = kernel.current->copy_groups;
  while (static_cast<int>(groups.size()) > pending_groups) {
    for (AsyncCopy& copy : groups.front()) Land(copy);
    groups.pop_front();
  }
}

}  // namespace cuda_emulator
