// For tests of the emulator: device arrays, and a kernel run to its end under a schedule.
#ifndef CAIRN_TESTS_EMULATOR_KERNEL_TESTING_H_
#define CAIRN_TESTS_EMULATOR_KERNEL_TESTING_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/emulator/emulator.h"

namespace cuda_emulator {

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

// Launches on a stream of its own and waits; the emulator's error, or nothing. The error is cleared.
template <typename... Parameters, typename... Arguments>
std::string RunKernel(void (*kernel)(Parameters...), cairn::cuda::LaunchShape shape, Arguments... arguments) {
  cudaStream_t stream;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  cairn::cuda::Launch("test", kernel, stream, shape, arguments...);
  const cudaError_t status = cudaStreamSynchronize(stream);
  const std::string error = LastError();
  EXPECT_EQ(status, error.empty() ? cudaSuccess : cudaErrorLaunchFailure);
  ResetErrors();
  cudaStreamDestroy(stream);
  return error;
}

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_KERNEL_TESTING_H_
