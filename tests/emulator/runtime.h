// Inside the fake runtime: what the fake libraries (cuBLASLt) need of it.
#ifndef CAIRN_TESTS_EMULATOR_RUNTIME_H_
#define CAIRN_TESTS_EMULATOR_RUNTIME_H_

#include <driver_types.h>

#include <functional>
#include <mutex>
#include <string>

namespace cuda_emulator {

// One thread at a time is inside the emulator.
std::recursive_mutex& Lock();

// Puts work behind what the stream already has (or into the graph that it captures). The work may touch device memory;
// it returns what went wrong, or nothing. It may run many times when it is part of a graph.
cudaError_t Enqueue(cudaStream_t stream, std::function<std::string()> work);

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_RUNTIME_H_
