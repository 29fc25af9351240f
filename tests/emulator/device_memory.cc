#include "tests/emulator/device_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

#include "tests/emulator/emulator.h"
#include "tests/emulator/fiber.h"
#include "tests/emulator/race_check.h"

#if CUDA_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kRange = size_t{1} << 36;  // of addresses; memory is taken where it is touched
constexpr size_t kFence = 256;
constexpr size_t kFilled = size_t{4} << 20;  // of an allocation; the rest of a large one stays unmapped, zero
constexpr size_t kDefaultBytes = size_t{4} << 30;

char* range = nullptr;
std::map<char*, size_t> allocated;  // begin -> bytes
std::map<size_t, size_t> holes;     // free pieces below `top`: offset -> bytes
size_t top = 0;                     // offsets from here on were never used
size_t total_bytes = kDefaultBytes, used_bytes = 0;
int accesses = 0;
struct sigaction previous_action;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void OnFault(int signal, siginfo_t* info, void* context) {
  if (!InDeviceRange(info->si_addr)) {  // somebody else's
    if (previous_action.sa_flags & SA_SIGINFO) return previous_action.sa_sigaction(signal, info, context);
    sigaction(SIGSEGV, &previous_action, nullptr);
    return;
  }
  char text[256];
  char* address = static_cast<char*>(info->si_addr);
  auto after = allocated.upper_bound(address);
  const size_t bytes = after == allocated.begin() ? 0 : std::prev(after)->second;
  const size_t offset = after == allocated.begin() ? 0 : static_cast<size_t>(address - std::prev(after)->first);
  const int length = std::snprintf(text, sizeof(text),
                                   "cuda emulator: host code touched device memory, %zu bytes into an allocation of "
                                   "%zu bytes: copy it to the host first, or do this on the device\n",
                                   offset, bytes);
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(length));
  std::abort();
}

void Reserve() {
  void* memory = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("cuda emulator: device memory");
    std::abort();
  }
  range = static_cast<char*>(memory);
  struct sigaction action = {};
  action.sa_sigaction = &OnFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous_action);
}

void Protect(bool closed) {
  if (top == 0) return;
  if (mprotect(range, RoundUp(top, 4096), closed ? PROT_NONE : PROT_READ | PROT_WRITE) != 0) {
    std::perror("cuda emulator: protection of device memory");
    std::abort();
  }
}

// The first hole that is large enough, or new addresses.
size_t TakeOffset(size_t bytes) {
  for (auto it = holes.begin(); it != holes.end(); ++it) {
    const auto [offset, size] = *it;
    if (size < bytes) continue;
    holes.erase(it);
    if (size > bytes) holes[offset + bytes] = size - bytes;
    return offset;
  }
  const size_t offset = top;
  top += bytes;
  return offset;
}

void ReturnOffset(size_t offset, size_t bytes) {
  auto it = holes.emplace(offset, bytes).first;
  const auto next = std::next(it);
  if (next != holes.end() && it->first + it->second == next->first) {
    it->second += next->second;
    holes.erase(next);
  }
  if (it == holes.begin()) return;
  const auto before = std::prev(it);
  if (before->first + before->second == it->first) {
    before->second += it->second;
    holes.erase(it);
  }
}

}  // namespace

void SetDeviceMemory(size_t bytes) { total_bytes = bytes == SIZE_MAX ? kDefaultBytes : used_bytes + bytes; }

void* AllocateDevice(size_t bytes) {
  if (range == nullptr) Reserve();
  if (bytes > total_bytes || used_bytes + bytes > total_bytes) return nullptr;
  char* begin = range + TakeOffset(RoundUp(bytes + kFence, kFence));
  allocated[begin] = bytes;
  used_bytes += bytes;
  // Opened even inside an access: the range may have grown.
  Protect(/*closed=*/false);
#if CUDA_EMULATOR_ASAN
  __asan_poison_memory_region(begin, RoundUp(bytes + kFence, kFence));
  __asan_unpoison_memory_region(begin, bytes);
#endif
  std::memset(begin, 0xff, std::min(bytes, kFilled));
  if (accesses == 0) Protect(/*closed=*/true);
  race::Watch(begin, bytes);
  return begin;
}

bool FreeDevice(void* memory) {
  const auto it = allocated.find(static_cast<char*>(memory));
  if (it == allocated.end()) return false;
  const auto [begin, bytes] = *it;
  race::Unwatch(begin);
  allocated.erase(it);
  used_bytes -= bytes;
#if CUDA_EMULATOR_ASAN
  __asan_poison_memory_region(begin, RoundUp(bytes + kFence, kFence));
#endif
  ReturnOffset(static_cast<size_t>(begin - range), RoundUp(bytes + kFence, kFence));
  return true;
}

bool InDeviceRange(const void* address) {
  const char* byte = static_cast<const char*>(address);
  return range != nullptr && byte >= range && byte < range + kRange;
}

bool IsAllocated(const void* address, size_t bytes) {
  char* byte = const_cast<char*>(static_cast<const char*>(address));
  auto after = allocated.upper_bound(byte);
  if (after == allocated.begin()) return false;
  const auto [begin, size] = *std::prev(after);
  return byte + bytes <= begin + size;
}

size_t DeviceBytesFree() { return total_bytes - used_bytes; }
size_t DeviceBytesTotal() { return total_bytes; }

DeviceAccess::DeviceAccess() {
  if (accesses++ == 0) Protect(/*closed=*/false);
}

DeviceAccess::~DeviceAccess() {
  if (--accesses == 0) Protect(/*closed=*/true);
}

}  // namespace cuda_emulator
