// What runs an op: the device, its threads (later: its stream), scratch memory, and the type that activations are
// rounded to. Passed as an argument; there are no globals.
#ifndef CAIRN_KERNELS_CORE_CONTEXT_H_
#define CAIRN_KERNELS_CORE_CONTEXT_H_

#include <memory>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/device.h"
#include "kernels/core/dtype.h"
#include "kernels/core/thread_pool.h"

namespace cairn {

class Context {
 public:
  // Activations are held as float32 on CPU; with kBFloat16 (kFloat16) every op rounds what it writes to that type, as
  // a GPU that stores it would. kFloat32 rounds nothing.
  static std::unique_ptr<Context> Cpu(int num_threads, DType activation_dtype);

  Device device() const { return device_; }
  DType activation_dtype() const { return activation_dtype_; }
  ThreadPool& threads() { return threads_; }

  // Scratch of at least `bytes` for one worker, 64-byte aligned, valid until the next call for that worker. Grows on
  // first use (warm-up), never shrinks.
  void* Scratch(int worker, size_t bytes);

 private:
  Context(Device device, int num_threads, DType activation_dtype);

  Device device_;
  DType activation_dtype_;
  ThreadPool threads_;
  std::vector<Buffer> scratch_;  // one per worker
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_CONTEXT_H_
