// Data races between the threads of a kernel. The files with kernels are compiled with -fsanitize=thread, whose only
// effect is a call before every memory access; race_check.cc answers these calls (libtsan is not linked).
//
// Two accesses to one byte of shared or device memory, by two threads, at least one of them a write and not both
// atomic, are a race unless something orders them: a block barrier between threads of a block, a warp operation between
// threads of a warp. Not the schedule decides, so a missing barrier is found in any.
#ifndef CAIRN_TESTS_EMULATOR_RACE_CHECK_H_
#define CAIRN_TESTS_EMULATOR_RACE_CHECK_H_

#include <cstddef>
#include <cstdint>

namespace cuda_emulator::race {

// Device memory and the block's shared memory: what is watched.
void Watch(const void* memory, size_t bytes);
void Unwatch(const void* memory);

void BeginKernel(const char* name);
// Shared memory starts anew.
void BeginBlock(uint32_t block);
// The thread that runs now, the barriers it has passed, and the operations of its warp.
void SetThread(int thread, uint32_t barriers, uint32_t warp_operations);
void EndKernel();

void Access(const void* address, size_t bytes, bool is_write, bool is_atomic, const void* program_counter);

// Of the kernel at hand, the first race or access outside of device memory: empty if there is none.
const char* FirstFinding();
int64_t NumRaces();
void Reset();
void Enable(bool on);
bool HooksCalled();

}  // namespace cuda_emulator::race

#endif  // CAIRN_TESTS_EMULATOR_RACE_CHECK_H_
