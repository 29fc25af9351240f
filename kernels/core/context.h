// What runs an op: the device, its threads or its stream, scratch memory, and the type that activations are rounded to.
// Passed as an argument; there are no globals.
#ifndef CAIRN_KERNELS_CORE_CONTEXT_H_
#define CAIRN_KERNELS_CORE_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/buffer.h"
#include "kernels/core/device.h"
#include "kernels/core/dtype.h"
#include "kernels/core/thread_pool.h"

namespace cairn {

namespace cpu {
struct Kernels;  // the inner loops of one instruction set (kernels/cpu/kernels.h)
}
namespace cuda {
class DeviceState;  // stream, libraries, staging of one GPU (kernels/cuda/device_state.h)
}

class Context {
 public:
  // Activations are held as float32 on CPU; with kBFloat16 (kFloat16) every op rounds what it writes to that type, as
  // a GPU that stores it would. kFloat32 rounds nothing. Uses the best instruction set that the CPU has, or the one
  // that the environment variable CAIRN_CPU_ISA names (which must be good: CheckEnvironment).
  static std::unique_ptr<Context> Cpu(int num_threads, DType activation_dtype);
  static std::unique_ptr<Context> Cpu(int num_threads, DType activation_dtype, const cpu::Kernels& kernels);
  // INVALID_ARGUMENT where CAIRN_CPU_ISA names an instruction set that is unknown or that this CPU lacks; lists those
  // that it has. To be called before Cpu() where a user may have set the variable.
  static absl::Status CheckEnvironment();
  // A GPU, by its number among those that CUDA_VISIBLE_DEVICES leaves. Ops only give work to its stream; whoever reads
  // a result waits (Synchronize, CopyToHost). UNAVAILABLE where there is no such GPU, FAILED_PRECONDITION in a build
  // without CUDA.
  static absl::StatusOr<std::unique_ptr<Context>> Cuda(int index, DType activation_dtype);
  // GPUs that Cuda() can use; 0 without a driver or in a build without CUDA.
  static int NumCudaDevices();
  // Their device_id()s.
  static std::vector<std::string> CudaDeviceIds();
  ~Context();

  Device device() const { return device_; }
  DType activation_dtype() const { return activation_dtype_; }
  // What holds activations in memory: float32 on CPU, the activation type itself on CUDA.
  DType storage_dtype() const { return device_.is_cpu() ? DType::kFloat32 : activation_dtype_; }
  // Of the GPU, whoever uses it. Zeros on CPU.
  struct MemoryInfo {
    int64_t free_bytes = 0, total_bytes = 0;
  };
  MemoryInfo device_memory() const;
  // Tells a host's GPUs apart, whatever CUDA_VISIBLE_DEVICES calls them. Empty on CPU.
  std::string device_id() const;

  // Until the ops given so far are done. On CPU they are.
  void Synchronize();
  ThreadPool& threads() { return threads_; }
  const cpu::Kernels& cpu_kernels() const { return *cpu_kernels_; }
  cuda::DeviceState& cuda() { return *cuda_; }
  // The instruction set in use, for logs: scalar, avx2, avx512, avx512_bf16, avx512_amx; cuda.
  const char* isa_name() const;

  // Scratch of at least `bytes` for one worker, 64-byte aligned, valid until the next call for that worker. Grows on
  // first use (warm-up), never shrinks.
  void* Scratch(int worker, size_t bytes);
  // The same, for all workers together; valid until the next call. Only outside parallel regions. On CUDA: device
  // memory, for the ops on the stream, which follow one another.
  void* SharedScratch(size_t bytes) { return Scratch(threads_.num_threads(), bytes); }
  // How often scratch memory has grown, and with that moved.
  int64_t scratch_allocations() const { return scratch_allocations_; }

  // Cosines and sines of the rotary angles of the last positions asked for: a step rotates queries and keys of every
  // layer by the same ones.
  struct RotaryTable {
    std::vector<int32_t> positions;
    std::vector<float> inv_freq;
    float attention_scale = 0;
    std::vector<float> cosine, sine;  // [positions, inv_freq]
  };
  RotaryTable& rotary_table() { return rotary_table_; }

 private:
  Context(Device device, int num_threads, DType activation_dtype, const cpu::Kernels* cpu_kernels,
          std::unique_ptr<cuda::DeviceState> cuda);

  Device device_;
  DType activation_dtype_;
  const cpu::Kernels* cpu_kernels_;          // null on CUDA
  std::unique_ptr<cuda::DeviceState> cuda_;  // null on CPU
  ThreadPool threads_;
  std::vector<Buffer> scratch_;  // one per worker, and the shared one
  std::atomic<int64_t> scratch_allocations_ = 0;
  RotaryTable rotary_table_;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_CONTEXT_H_
