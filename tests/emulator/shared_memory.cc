#include "tests/emulator/shared_memory.h"

#include <cstring>
#include <vector>

#include "tests/emulator/fiber.h"

#if CUDA_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kFence = 64;
constexpr size_t kStaticArena = 2 * kMaxStaticShared;
// The dynamic part lies behind the static arrays.
alignas(1024) char arena[kStaticArena + kMaxShared + kFence];

struct Array {
  const void* key;
  char* begin;
  size_t bytes;
};
std::vector<Array> arrays;
size_t arena_used = 0, static_bytes = 0, dynamic_size = 0;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void Open(char* begin, size_t bytes) {
#if CUDA_EMULATOR_ASAN
  __asan_unpoison_memory_region(begin, bytes);
#endif
  std::memset(begin, 0xff, bytes);
}

}  // namespace

void ResetShared(size_t dynamic_bytes) {
  arrays.clear();
  arena_used = static_bytes = 0;
  dynamic_size = dynamic_bytes;
#if CUDA_EMULATOR_ASAN
  __asan_poison_memory_region(arena, sizeof(arena));
#endif
  Open(DynamicSharedBegin(), dynamic_bytes);
}

void* StaticShared(const void* key, size_t bytes, size_t alignment) {
  for (const Array& array : arrays) {
    if (array.key == key) return array.begin;
  }
  // An odd multiple of the alignment where that is small.
  const size_t begin = RoundUp(arena_used + kFence, 2 * alignment) + (alignment < 16 ? alignment : 0);
  static_bytes = RoundUp(static_bytes, alignment) + bytes;
  if (static_bytes > kMaxStaticShared || static_bytes + dynamic_size > kMaxShared ||
      begin + bytes + kFence > kStaticArena) {
    return nullptr;
  }
  arena_used = begin + bytes;
  Open(arena + begin, bytes);
  arrays.push_back({key, arena + begin, bytes});
  return arena + begin;
}

char* DynamicSharedBegin() { return arena + kStaticArena; }

bool IsShared(const void* address, size_t bytes) {
  const char* begin = static_cast<const char*>(address);
  if (begin >= DynamicSharedBegin() && begin + bytes <= DynamicSharedBegin() + dynamic_size) return true;
  for (const Array& array : arrays) {
    if (begin >= array.begin && begin + bytes <= array.begin + array.bytes) return true;
  }
  return false;
}

char* SharedBegin() { return arena; }
size_t SharedBytes() { return sizeof(arena); }

}  // namespace cuda_emulator
