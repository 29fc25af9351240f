// One GPU for benchmarks: its context, device memory with random contents, times by events, and the line of JSON that
// reports a figure. Linked with the emulator (CAIRN_BENCH_EMULATED) the same code runs without a GPU: its times mean
// nothing there, and every line says so.
#ifndef CAIRN_BENCH_GPU_GPU_H_
#define CAIRN_BENCH_GPU_GPU_H_

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "bench/gpu/lt_matmul.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "nlohmann/json.hpp"

namespace cairn::bench {

using Json = nlohmann::ordered_json;

class Gpu {
 public:
  // GPU 0. `small`: sizes and repeats for an emulator.
  static absl::StatusOr<std::unique_ptr<Gpu>> Open(bool small);
  ~Gpu();

  Context& context() { return *context_; }
  cudaStream_t stream();
  LtLibrary& lt() { return *lt_; }
  bool small() const { return small_; }
  Device device() const { return context_->device(); }

  Buffer Allocate(size_t bytes) const;
  // Filled with copies of a block of random elements of `type`; RandomElement tells which.
  Buffer AllocateRandom(LtType type, int64_t elements);
  double RandomElement(LtType type, int64_t i) const;

  // Median seconds of `launch`, which gives work to the stream, between two events; what L2 holds before each run is
  // clean and not `launch`'s. Launching takes the host less time than the flush takes the GPU, so it does not count.
  // `prepare` comes before each and is not timed.
  double Time(
      absl::FunctionRef<void()> launch, absl::FunctionRef<void()> prepare = [] {});

  // Prints {"figure": name, ..., "us": .., "GB/s": .., "TFLOP/s": ..}; no rate where bytes or flops are 0.
  void Report(const char* name, Json fields, double seconds, double bytes, double flops) const;
  void Report(const char* name, Json fields) const;

 private:
  Gpu() = default;
  const std::vector<uint8_t>& Block(LtType type) const;
  void Flush();

  bool small_ = false;
  std::unique_ptr<Context> context_;
  std::unique_ptr<LtLibrary> lt_;
  // A product that reads 128 MB and writes next to nothing: L2's lines are its, and clean.
  std::unique_ptr<LtMatMul> flush_;
  Buffer flush_x_, flush_w_, flush_y_;
  std::vector<uint8_t> bf16_block_, fp8_block_;
  std::vector<cudaEvent_t> events_;
};

// What can be asked for by name.
void MeasureDevice(Gpu& gpu);
void MeasureCopy(Gpu& gpu);
void MeasurePeak(Gpu& gpu);
void MeasureMatMuls(Gpu& gpu);
void MeasureAttention(Gpu& gpu);
void MeasureImportance(Gpu& gpu);
void MeasureRedundancy(Gpu& gpu);
void MeasureSelection(Gpu& gpu);
void MeasureCompaction(Gpu& gpu);
void MeasureEvent(Gpu& gpu);

}  // namespace cairn::bench

#endif  // CAIRN_BENCH_GPU_GPU_H_
