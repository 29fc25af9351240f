// What the GPU is and can do: the yardsticks of the other figures.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "bench/gpu/gpu.h"
#include "kernels/core/check.h"
#include "kernels/core/check_cuda.h"

namespace cairn::bench {

void MeasureDevice(Gpu& gpu) {
  cudaDeviceProp properties = {};
  CAIRN_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  int runtime = 0, driver = 0, count = 0;
  size_t free_bytes = 0, total_bytes = 0;
  CAIRN_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  CAIRN_CUDA_CHECK(cudaDriverGetVersion(&driver));
  CAIRN_CUDA_CHECK(cudaGetDeviceCount(&count));
  CAIRN_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  gpu.Report("device", {{"name", properties.name},
                        {"compute_capability", properties.major * 10 + properties.minor},
                        {"multiprocessors", properties.multiProcessorCount},
                        {"l2_bytes", properties.l2CacheSize},
                        {"total_bytes", total_bytes},
                        {"free_bytes", free_bytes},
                        {"gpus", count},
                        {"cuda_runtime", runtime},
                        {"cuda_driver", driver}});
}

// Device to device; bytes read and written both count.
void MeasureCopy(Gpu& gpu) {
  const size_t bytes = gpu.small() ? size_t{1} << 16 : size_t{4} << 30;
  const Buffer from = gpu.AllocateRandom(LtType::kBFloat16, static_cast<int64_t>(bytes / 2)), to = gpu.Allocate(bytes);
  const double seconds = gpu.Time([&] {
    CAIRN_CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, gpu.stream()));
  });
  gpu.Report("copy", {{"bytes", bytes}}, seconds, 2.0 * static_cast<double>(bytes), 0);
}

// On random data: zeros run faster.
void MeasurePeak(Gpu& gpu) {
  const int64_t size = gpu.small() ? 64 : 8192;
  const size_t workspace_bytes = gpu.small() ? 4096 : size_t{32} << 20;
  const Buffer x = gpu.AllocateRandom(LtType::kBFloat16, size * size);
  const Buffer w = gpu.AllocateRandom(LtType::kBFloat16, size * size);
  const Buffer y = gpu.Allocate(static_cast<size_t>(size * size * 2)), workspace = gpu.Allocate(workspace_bytes);
  LtMatMul product(gpu.lt(), {LtType::kBFloat16, size, size, size, workspace_bytes, nullptr}, 1);
  CAIRN_CHECK(product.num_algorithms() > 0, "cuBLASLt has no algorithm for the large product");
  const double seconds =
      gpu.Time([&] { product.Run(0, x.data(), w.data(), y.data(), workspace.data(), gpu.stream()); });
  gpu.Report("peak", {{"size", size}}, seconds, 0, 2.0 * static_cast<double>(size * size) * static_cast<double>(size));
}

}  // namespace cairn::bench
