#include "bench/gpu/gpu.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/check_cuda.h"
#include "kernels/core/dtype.h"
#include "kernels/core/float8.h"
#include "kernels/core/status_macros.h"
#include "kernels/cuda/device_state.h"

namespace cairn::bench {
namespace {

// Random elements are repeated after this many (a prime, so that rows of a matrix differ).
constexpr int64_t kBlockElements = 4194301;
constexpr int kRepeats = 15, kWarmUps = 3;

// E4M3 of 2^-3 to 1.875, either sign: sums of products stay far from its ends.
uint8_t RandomFloat8(std::mt19937& random) {
  const uint32_t bits = random();
  return static_cast<uint8_t>((bits & 0x80) | (0x20 + (bits & 0x1f)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gpu>> Gpu::Open(bool small) {
  std::unique_ptr<Gpu> gpu(new Gpu);
  gpu->small_ = small;
  CAIRN_ASSIGN_OR_RETURN(gpu->context_, Context::Cuda(0, DType::kBFloat16));
  CAIRN_ASSIGN_OR_RETURN(gpu->lt_, LtLibrary::Create());
  std::mt19937 random(1);
  const int64_t elements = small ? 4093 : kBlockElements;
  for (int64_t i = 0; i < elements; ++i) {
    // Uniform with deviation 1/2.
    const float value = (static_cast<float>(random()) * 0x1p-32f - 0.5f) * 1.7320508f;
    const uint16_t bits = FloatToBFloat16(value);
    gpu->bf16_block_.push_back(static_cast<uint8_t>(bits & 0xff));
    gpu->bf16_block_.push_back(static_cast<uint8_t>(bits >> 8));
    gpu->fp8_block_.push_back(RandomFloat8(random));
  }
  for (int i = 0; i < 2 * kRepeats; ++i) CAIRN_CUDA_CHECK(cudaEventCreate(&gpu->events_.emplace_back()));
  if (!small) {
    constexpr int64_t kRows = 8, kSize = 8192;
    gpu->flush_x_ = gpu->AllocateRandom(LtType::kBFloat16, kRows * kSize);
    gpu->flush_w_ = gpu->AllocateRandom(LtType::kBFloat16, kSize * kSize);
    gpu->flush_y_ = gpu->Allocate(kRows * kSize * 2);
    gpu->flush_ =
        std::make_unique<LtMatMul>(*gpu->lt_, LtMatMul::Problem{LtType::kBFloat16, kRows, kSize, kSize, 0, nullptr}, 1);
    if (gpu->flush_->num_algorithms() == 0) return absl::InternalError("cuBLASLt has no algorithm for the L2 flush");
  }
  return gpu;
}

Gpu::~Gpu() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
}

cudaStream_t Gpu::stream() { return context_->cuda().stream(); }

Buffer Gpu::Allocate(size_t bytes) const {
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(device(), bytes);
  CAIRN_CHECK(buffer.ok(), buffer.status().ToString());
  return *std::move(buffer);
}

const std::vector<uint8_t>& Gpu::Block(LtType type) const { return type == LtType::kFloat8 ? fp8_block_ : bf16_block_; }

Buffer Gpu::AllocateRandom(LtType type, int64_t elements) {
  const std::vector<uint8_t>& block = Block(type);
  const size_t bytes = static_cast<size_t>(elements * LtTypeSize(type));
  Buffer buffer = Allocate(bytes);
  const size_t first = std::min(bytes, block.size());
  CAIRN_CUDA_CHECK(cudaMemcpyAsync(buffer.data(), block.data(), first, cudaMemcpyHostToDevice, stream()));
  for (size_t done = first; done < bytes;) {  // doubles
    const size_t more = std::min(done / block.size() * block.size(), bytes - done);
    CAIRN_CUDA_CHECK(cudaMemcpyAsync(buffer.data() + done, buffer.data(), more, cudaMemcpyDeviceToDevice, stream()));
    done += more;
  }
  context_->Synchronize();
  return buffer;
}

double Gpu::RandomElement(LtType type, int64_t i) const {
  const std::vector<uint8_t>& block = Block(type);
  const size_t at = static_cast<size_t>(i * LtTypeSize(type)) % block.size();
  if (type == LtType::kFloat8) return Float8E4M3ToFloat(block[at]);
  return BFloat16ToFloat(static_cast<uint16_t>(block[at] | block[at + 1] << 8));
}

void Gpu::Flush() {
  if (flush_ != nullptr) flush_->Run(0, flush_x_.data(), flush_w_.data(), flush_y_.data(), nullptr, stream());
}

double Gpu::Time(absl::FunctionRef<void()> launch, absl::FunctionRef<void()> prepare) {
  const int repeats = small_ ? 1 : kRepeats, warm_ups = small_ ? 1 : kWarmUps;
  for (int i = 0; i < warm_ups; ++i) {
    prepare();
    launch();
  }
  for (int i = 0; i < repeats; ++i) {
    prepare();
    Flush();
    CAIRN_CUDA_CHECK(cudaEventRecord(events_[2 * i], stream()));
    launch();
    CAIRN_CUDA_CHECK(cudaEventRecord(events_[2 * i + 1], stream()));
  }
  context_->Synchronize();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    float milliseconds = 0;
    CAIRN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[2 * i], events_[2 * i + 1]));
    seconds.push_back(milliseconds * 1e-3);
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[repeats / 2];
}

void Gpu::Report(const char* name, Json fields, double seconds, double bytes, double flops) const {
  fields["us"] = seconds * 1e6;
  if (bytes > 0) fields["GB/s"] = bytes / seconds / 1e9;
  if (flops > 0) fields["TFLOP/s"] = flops / seconds / 1e12;
  Report(name, std::move(fields));
}

void Gpu::Report(const char* name, Json fields) const {
  Json line = {{"figure", name}};
#if CAIRN_BENCH_EMULATED
  line["emulated"] = true;
#endif
  line.update(fields);
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace cairn::bench
