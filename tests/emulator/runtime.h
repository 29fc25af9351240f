// Inside the fake runtime: what the fake libraries (cuBLASLt) need of it.
#ifndef CAIRN_TESTS_EMULATOR_RUNTIME_H_
#define CAIRN_TESTS_EMULATOR_RUNTIME_H_

#include <driver_types.h>

#include <functional>
#include <string>

namespace cuda_emulator {

// One thread at a time is inside the emulator. A thread that has to wait for another rank (Work::ready) lets go of it,
// however often it holds it.
class Guard {
 public:
  Guard();
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
};

// Puts work behind what the stream already has (or into the graph that it captures). The work may touch device memory;
// it returns what went wrong, or nothing. It may run many times when it is part of a graph.
cudaError_t Enqueue(cudaStream_t stream, std::function<std::string()> work);
// The same for work that needs other ranks: it runs once `ready` says so, which is asked again and again from the time
// when the work is at the front of its stream (and opens device memory itself, DeviceAccess). Each replay of a graph
// asks a copy of `ready` as it was given here. While one stream waits, other streams go on as far as work of this kind
// is in them, as they would on a GPU.
cudaError_t EnqueueWhenReady(cudaStream_t stream, std::function<bool()> ready, std::function<std::string()> work);

bool IsCapturing(cudaStream_t stream);
// Of the calling thread, as cudaSetDevice left it.
int CurrentDevice();

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_RUNTIME_H_
