// A rank's threads. Parallel regions are short (one op), so workers spin briefly, then yield, then sleep: ranks may
// share cores.
#ifndef CAIRN_KERNELS_CORE_THREAD_POOL_H_
#define CAIRN_KERNELS_CORE_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace cairn {

class ThreadPool {
 public:
  // The calling thread counts: ThreadPool(1) starts none.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Runs body(task, worker) for task in [0, num_tasks), worker in [0, num_threads). Tasks are handed out dynamically,
  // up to 32 of them first to worker task % num_threads; a body must not let its result depend on who runs it. Returns
  // when all are done. Allocates nothing. Not reentrant.
  void ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int worker)> body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_THREAD_POOL_H_
