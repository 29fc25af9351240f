// Runs the grid of a kernel: blocks one after another, the threads of a block as fibers, by the schedule that is set.
#ifndef CAIRN_TESTS_EMULATOR_SCHEDULER_H_
#define CAIRN_TESTS_EMULATOR_SCHEDULER_H_

#include <vector_types.h>

#include <cstddef>
#include <functional>
#include <string>

namespace cuda_emulator {

struct Grid {
  std::string kernel;
  dim3 blocks, threads;
  size_t dynamic_shared_bytes = 0;
  std::function<void()> thread_body;
};

// What went wrong, or nothing. Not reentrant: callers hold the runtime's lock.
std::string RunGrid(const Grid& grid);

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_SCHEDULER_H_
