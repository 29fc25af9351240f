// The shared memory of the block that runs: static arrays and the dynamic part. Each block finds it filled with 0xff.
// Arrays are fenced (under the address sanitizer) and aligned as asked and no better, so that a luckily aligned access
// does not pass here and fail on a GPU.
#ifndef CAIRN_TESTS_EMULATOR_SHARED_MEMORY_H_
#define CAIRN_TESTS_EMULATOR_SHARED_MEMORY_H_

#include <cstddef>

namespace cuda_emulator {

inline constexpr size_t kMaxStaticShared = 48 << 10;
inline constexpr size_t kMaxShared = 227 << 10;  // of a block on sm_90, static and dynamic

// Called once per block.
void ResetShared(size_t dynamic_bytes);
// Null where the block's static arrays would exceed the limit.
void* StaticShared(const void* key, size_t bytes, size_t alignment);
// 128-byte aligned.
char* DynamicSharedBegin();
bool IsShared(const void* address, size_t bytes);
// All of it, for the race check.
char* SharedBegin();
size_t SharedBytes();

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_SHARED_MEMORY_H_
