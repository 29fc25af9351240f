// The CUDA emulator, as tests steer it: kernels (.cu files compiled as C++ against include/cuda_emulator.h) run on the
// CPU, one fiber per CUDA thread, behind a fake CUDA runtime (fake_cudart.cc) and a fake cuBLASLt (fake_cublaslt.cc).
//
// It checks logic: indices, tails, shared memory, barriers, warp operations, races, host code that touches device
// memory or forgets to synchronise. It knows nothing of time, occupancy, memory order between blocks, or what nvcc and
// ptxas make of a kernel.
#ifndef CAIRN_TESTS_EMULATOR_EMULATOR_H_
#define CAIRN_TESTS_EMULATOR_EMULATOR_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_emulator {

// The order in which blocks, warps and lanes run. A warp runs as far as barriers let it before the next one starts:
// taking turns would keep warps in step and hide missing barriers. Random also leaves a warp halfway now and then.
enum class Order { kForward, kReverse, kRandom };

struct Schedule {
  Order order = Order::kForward;
  uint64_t seed = 1;  // of kRandom
};

// A kernel should be run under all of these: several missing barriers pass in any one of them.
inline constexpr Schedule kSchedules[] = {
    {Order::kForward, 1}, {Order::kReverse, 1}, {Order::kRandom, 1}, {Order::kRandom, 2}};

// For the kernels that run from now on.
void SetSchedule(const Schedule& schedule);

// What went wrong in a kernel, since ResetErrors: kernel, block, thread, file and line. The fake runtime reports it as
// CUDA would (cudaErrorLaunchFailure, at the next synchronisation, then from every call), with this as its text.
std::string LastError();
void ResetErrors();

// Data races found since ResetErrors, where the kernels are compiled with the race check's hooks. A race is also an
// error of its kernel.
int64_t NumRaces();
// Turns the reporting off where a kernel's races are meant (an agreement between blocks by fence and counter).
void SetRaceCheck(bool on);
// Are the kernels compiled with the hooks?
bool HasRaceCheck();

// Calls of cudaMalloc and cudaMallocHost so far: to test that nothing is allocated after start-up.
int64_t NumAllocations();
// Bytes of device memory that cudaMalloc can still give out; for tests of running out. SIZE_MAX: the default, 4 GiB.
void SetDeviceMemory(size_t bytes);
// GPUs that cudaGetDeviceCount finds from now on: 1 unless told. They share their memory; streams belong to one.
void SetDeviceCount(int count);

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_EMULATOR_H_
